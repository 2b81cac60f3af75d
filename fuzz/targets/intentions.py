"""The compiled policy decides as a slow model does that reads Consul's rule word by word."""

from __future__ import annotations

from fuzz.draw import Draw
from proxy.model import CloseReason, PeerBundle, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intentions import Permit, Policy
from proxy.rules import Action, Intention

CODE = ("proxy.policy.intentions",)

_HOME, _PEER = "home.consul", "peer.consul"
_NAMES = ("web", "api", "*")
_PARTITIONS = ("default", "east")
_PEERS = ("", "there")


def run(data: bytes) -> None:
    draw = Draw(data)
    known = draw.below(8) > 0
    default = draw.choice((None, Action.ALLOW, Action.DENY))
    intentions = tuple(_intention(draw) for _ in range(draw.below(6)))
    policy = Policy(
        service=ServiceName("db"),
        trust_domain=_HOME,
        default_action=default,
        intentions=intentions if known else None,
        peer_bundles=(PeerBundle("there", _PEER, (), "east"),) if draw.truth() else (),
    )
    peers = {"there"} if policy.stranger(Identity(_PEER, "x", partition="east"), "there") == "" else set()
    for _ in range(4):
        identity = Identity(
            draw.choice((_HOME, _PEER)), draw.choice(_NAMES[:2]), draw.choice(("default", "billing")),
            draw.choice(_PARTITIONS),
        )  # fmt: skip
        peer = draw.choice(_PEERS)
        expected = model(identity, peer, intentions if known else None, default, peers)
        for _again in range(2):
            decision = policy.authorize(identity, peer)
            assert (None if isinstance(decision, Permit) else decision.reason) == expected


def _intention(draw: Draw) -> Intention:
    return Intention(
        source=draw.choice(_NAMES),
        action=draw.choice((Action.ALLOW, Action.DENY)),
        precedence=1 + draw.below(9),
        source_namespace=draw.choice(("default", "billing", "*")),
        source_partition=draw.choice((*_PARTITIONS, "*")),
        source_peer=draw.choice(_PEERS),
        destination="db",
        layer7=draw.below(4) == 3,
    )


def model(
    identity: Identity,
    peer: str,
    intentions: tuple[Intention, ...] | None,
    default: Action | None,
    known_peers: set[str],
) -> CloseReason | None:
    """``None`` is an allowance; otherwise why not."""
    if not peer and identity.trust_domain != _HOME:
        return CloseReason.BAD_IDENTITY
    if peer and (peer not in known_peers or (identity.trust_domain, identity.partition) != (_PEER, "east")):
        return CloseReason.BAD_IDENTITY
    if intentions is None:
        return CloseReason.POLICY_UNKNOWN
    matching = [one for one in intentions if _names(one, identity, peer)]
    if matching:
        highest = max(one.precedence for one in matching)
        first = next(one for one in matching if one.precedence == highest)
        allowed = first.action is Action.ALLOW and not first.layer7
        return None if allowed else CloseReason.DENIED
    if default is None:
        return CloseReason.POLICY_UNKNOWN
    return None if default is Action.ALLOW else CloseReason.DENIED


def _names(intention: Intention, identity: Identity, peer: str) -> bool:
    return (
        intention.source_peer == peer
        and intention.source in ("*", identity.service)
        and intention.source_namespace in ("*", identity.namespace)
        and (bool(peer) or intention.source_partition in ("*", identity.partition))
    )
