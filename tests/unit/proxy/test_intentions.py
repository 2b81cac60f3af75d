"""Decisions, against examples and against a slow reference that was written from Consul's rule alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import CloseReason, Leaf, Mesh, PeerBundle, Service, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intentions import Decision, Permit, Policy, Refusal, describe
from proxy.rules import Action, Intention

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
PEER_DOMAIN = "99999999-2222-3333-4444-555555555555.consul"
LEAF = Leaf("", "", "spiffe://", "01", 0.0, 0.0)
WEB = Identity(DOMAIN, "web", datacenter="dc1")
ALLOW, DENY = Action.ALLOW, Action.DENY


def policy(
    *intentions: Intention, default: Action | None = DENY, known: bool = True, peers: tuple[PeerBundle, ...] = ()
) -> Policy:
    service = Service(ServiceName("db"), LEAF, (), intentions=intentions if known else None)
    return Policy.compile(service, Mesh(DOMAIN, "dc1", (), default_action=default, peer_bundles=peers))


def reason(decision: Decision) -> CloseReason:
    assert isinstance(decision, Refusal)
    return decision.reason


def test_an_exact_intention_allows() -> None:
    intention = Intention("web", ALLOW, 9, destination="db")
    decision = policy(intention).authorize(WEB)
    assert isinstance(decision, Permit)
    assert decision.intention == intention
    assert decision.service == ServiceName("db")
    assert describe(decision) == "web => db (precedence 9)"


def test_the_default_decides_when_nothing_matches() -> None:
    denied = policy(Intention("batch", ALLOW, 9, destination="db")).authorize(WEB)
    assert reason(denied) is CloseReason.DENIED
    assert describe(denied) == "default deny"
    allowed = policy(default=ALLOW).authorize(WEB)
    assert isinstance(allowed, Permit)
    assert describe(allowed) == "default allow"


def test_unknown_intentions_let_nobody_in_even_by_default_allow() -> None:
    decision = policy(known=False, default=ALLOW).authorize(WEB)
    assert reason(decision) is CloseReason.POLICY_UNKNOWN
    assert describe(decision) == "policy_unknown"


def test_an_unknown_default_denies_only_who_is_not_matched() -> None:
    compiled = policy(Intention("web", ALLOW, 9, destination="db"), default=None)
    assert isinstance(compiled.authorize(WEB), Permit)
    batch = Identity(DOMAIN, "batch")
    assert reason(compiled.authorize(batch)) is CloseReason.POLICY_UNKNOWN


def test_any_source_to_this_service_goes_before_this_source_to_any_service() -> None:
    rules = (Intention("web", ALLOW, 6, destination="*"), Intention("*", DENY, 8, destination="db"))
    decision = policy(*rules, default=ALLOW).authorize(WEB)
    assert reason(decision) is CloseReason.DENIED
    assert describe(decision) == "* => db (precedence 8)"


def test_among_equal_precedence_the_order_of_consul_decides() -> None:
    first, second = Intention("web", DENY, 9, destination="db"), Intention("web", ALLOW, 9, destination="db")
    assert reason(policy(first, second).authorize(WEB)) is CloseReason.DENIED
    assert isinstance(policy(second, first).authorize(WEB), Permit)


@pytest.mark.parametrize("action", [ALLOW, DENY])
def test_an_intention_of_layer_7_denies_connections(action: Action) -> None:
    rules = (
        Intention("web", action, 9, destination="db", layer7=True),
        Intention("*", ALLOW, 8, destination="db"),
    )
    decision = policy(*rules, default=ALLOW).authorize(WEB)
    assert reason(decision) is CloseReason.DENIED
    assert isinstance(decision, Refusal)
    assert "permissions or JWT" in decision.sentence


def test_another_trust_domain_is_nobody() -> None:
    decision = policy(default=ALLOW).authorize(Identity(PEER_DOMAIN, "web"))
    assert reason(decision) is CloseReason.BAD_IDENTITY
    assert describe(decision) == "bad_identity"


def test_the_datacenter_is_not_looked_at() -> None:
    compiled = policy(Intention("web", ALLOW, 9))
    assert isinstance(compiled.authorize(Identity(DOMAIN, "web", datacenter="elsewhere")), Permit)


PEERS = (PeerBundle("east", PEER_DOMAIN, ()),)
PEER_WEB = Identity(PEER_DOMAIN, "web")


def test_a_peer_needs_an_intention_that_names_it() -> None:
    local = policy(Intention("web", ALLOW, 9), Intention("*", ALLOW, 8), peers=PEERS)
    assert reason(local.authorize(PEER_WEB, "east")) is CloseReason.DENIED
    named = policy(Intention("*", ALLOW, 8, source_peer="east", destination="db"), peers=PEERS)
    decision = named.authorize(PEER_WEB, "east")
    assert isinstance(decision, Permit)
    assert describe(decision) == "east:* => db (precedence 8)"
    assert reason(named.authorize(WEB)) is CloseReason.DENIED


def test_a_certificate_counts_only_for_the_mesh_whose_roots_verified_it() -> None:
    """A peer's authority can sign any URI: it must not become a service of this cluster, nor the reverse."""
    compiled = policy(default=ALLOW, peers=PEERS)
    assert reason(compiled.authorize(WEB, "east")) is CloseReason.BAD_IDENTITY
    assert reason(compiled.authorize(PEER_WEB)) is CloseReason.BAD_IDENTITY


def test_a_peer_without_a_bundle_is_nobody() -> None:
    assert reason(policy(default=ALLOW).authorize(PEER_WEB, "east")) is CloseReason.BAD_IDENTITY


def test_a_peer_is_one_partition_of_its_cluster() -> None:
    bundle = PeerBundle("east", PEER_DOMAIN, (), partition="billing")
    compiled = policy(Intention("web", ALLOW, 9, source_peer="east"), peers=(bundle,))
    assert reason(compiled.authorize(PEER_WEB, "east")) is CloseReason.BAD_IDENTITY
    billing = Identity(PEER_DOMAIN, "web", partition="billing")
    assert isinstance(compiled.authorize(billing, "east"), Permit)


def test_nothing_else_makes_a_permit() -> None:
    with pytest.raises(TypeError, match="only a Policy"):
        Permit(object(), ServiceName("db"), WEB, "", None)


def test_a_refusal_says_who_and_by_what() -> None:
    decision = policy(Intention("web", DENY, 9, destination="db")).authorize(WEB)
    assert isinstance(decision, Refusal)
    assert decision.sentence == ("web may not connect to db: denied by intention web => db (precedence 9)")


_part = st.sampled_from(["a", "b", "*"])
_intentions = st.lists(
    st.builds(
        Intention,
        source=_part,
        action=st.sampled_from(Action),
        precedence=st.integers(1, 9),
        source_namespace=_part,
        source_partition=st.sampled_from(["default", "b", "*"]),
        source_peer=st.sampled_from(["", "east", "west"]),
        destination=st.just("db"),
        layer7=st.booleans(),
    ),
    max_size=8,
)
_callers = st.tuples(
    st.sampled_from([DOMAIN, PEER_DOMAIN, "other.consul"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["default", "b"]),
    st.sampled_from(["", "east", "west"]),
)


def _reference(
    rules: list[Intention], default: Action | None, caller: tuple[str, str, str, str, str]
) -> tuple[str, Intention | None]:
    """The rule, word by word: of the matching intentions the highest precedence decides, else the default."""
    domain, name, namespace, partition, peer = caller
    verified_by = {"": DOMAIN, "east": PEER_DOMAIN}
    if verified_by.get(peer) != domain or (peer and partition != "default"):
        return "bad_identity", None
    matching = []
    for rule in rules:
        if rule.source_peer != peer:
            continue
        if not peer and rule.source_partition not in ("*", partition):
            continue
        if rule.source_namespace in ("*", namespace) and rule.source in ("*", name):
            matching.append(rule)
    if matching:
        highest = max(rule.precedence for rule in matching)
        decisive = next(rule for rule in matching if rule.precedence == highest)
        allowed = decisive.action == "allow" and not decisive.layer7
        return ("allowed" if allowed else "denied"), decisive
    if default is None:
        return "policy_unknown", None
    return ("allowed" if default == "allow" else "denied"), None


@given(rules=_intentions, default=st.sampled_from([ALLOW, DENY, None]), caller=_callers)
def test_decisions_are_those_of_the_reference(
    rules: list[Intention], default: Action | None, caller: tuple[str, str, str, str, str]
) -> None:
    domain, name, namespace, partition, peer = caller
    identity = Identity(domain, name, namespace, partition)
    decision = policy(*rules, default=default, peers=PEERS).authorize(identity, peer)
    outcome = "allowed" if isinstance(decision, Permit) else decision.reason.value
    assert (outcome, decision.intention) == _reference(rules, default, caller)
