"""Why an attempt was refused, in a sentence, and where to look.

What to write so that a caller is let in depends on the intentions that there are: the page asks ``/api/explain``.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from proxy.model import CloseReason


@dataclass(frozen=True, slots=True)
class Remedy:
    why: str
    remedy: str
    command: str = ""
    """To be typed where Consul's environment is set; it changes nothing."""


_SAID: dict[CloseReason, tuple[str, str, str]] = {
    CloseReason.NOT_TLS: (
        "What came was no TLS: only sidecars and other mesh clients may connect here.",
        "Let the caller use its sidecar's upstream instead of the gateway's address.",
        "",
    ),
    CloseReason.NO_SERVER_NAME: (
        "The client named no service (no SNI).",
        "Let the caller use its sidecar's upstream, which names it.",
        "",
    ),
    CloseReason.UNKNOWN_SERVER_NAME: (
        "The client asked for a service that is not linked to this gateway.",
        "Link it, if it should be reached here: consul-tgw link SERVICE ADDRESS:PORT.",
        "consul config read -kind terminating-gateway -name {gateway}",
    ),
    CloseReason.NO_CERTIFICATE: (
        "The client showed no certificate, so nobody knows who it is.",
        "Let the caller use its sidecar.",
        "",
    ),
    CloseReason.UNTRUSTED_CERTIFICATE: (
        "The client's certificate does not come from this mesh, or its time is over.",
        "Look at the caller's sidecar and its clock; compare its roots with Consul's.",
        "consul connect ca get-config",
    ),
    CloseReason.BAD_IDENTITY: (
        "The client's certificate does not name exactly one service of this mesh.",
        "Let the caller use the leaf of its own service.",
        "",
    ),
    CloseReason.TLS_FAILED: (
        "The client's TLS handshake failed.",
        "The gateway's log at level debug has the words of the TLS library.",
        "",
    ),
    CloseReason.HANDSHAKE_TIMEOUT: ("The client did not finish its handshake in time.", "Look at its network.", ""),
    CloseReason.DENIED: (
        "No intention allows {source} to call {service}.",
        "If it should be let in, add it to the intentions; consul-tgw explain says what to write.",
        "consul-tgw explain {source} {service}",
    ),
    CloseReason.REVOKED: (
        "It was allowed when it opened; a change of the intentions ended it.",
        "If it should be let in, add it to the intentions; consul-tgw explain says what to write.",
        "consul-tgw explain {source} {service}",
    ),
    CloseReason.POLICY_UNKNOWN: (
        "The intentions of {service} are not known yet, so nobody is let in.",
        "See what the gateway lacks: consul-tgw check.",
        "consul-tgw check",
    ),
    CloseReason.STALE_STATE: (
        "Consul has confirmed nothing for longer than --max-state-age.",
        "Bring the Consul agent back; then it is let in again by itself.",
        "consul members",
    ),
    CloseReason.UNLINKED: (
        "The service was taken out of this gateway while the connection was open.",
        "Link it again, if that was not meant.",
        "consul config read -kind terminating-gateway -name {gateway}",
    ),
    CloseReason.NO_ENDPOINTS: (
        "{service} has no instance that can be used.",
        "Register one, or let its health check pass.",
        "consul catalog nodes -service={service}",
    ),
    CloseReason.DIAL_FAILED: (
        "No instance of {service} took the connection.",
        "See whether it runs, and whether this host reaches it.",
        "consul catalog nodes -service={service}",
    ),
    CloseReason.DIAL_TIMEOUT: (
        "No instance of {service} answered in time.",
        "Look for a firewall between this host and it.",
        "consul catalog nodes -service={service}",
    ),
    CloseReason.EXHAUSTED: (
        "This machine lacks file descriptors, local ports or memory.",
        "Raise the limit of open files (LimitNOFILE), or lower --max-connections.",
        "",
    ),
    CloseReason.UPSTREAM_TLS_FAILED: (
        "TLS to {service} failed.",
        "Compare CAFile, CertFile, KeyFile and SNI of its link with what it expects.",
        "consul config read -kind terminating-gateway -name {gateway}",
    ),
    CloseReason.OVER_LIMIT: (
        "There were as many connections as are allowed.",
        "Raise the limit of {service} or of the gateway, or find who keeps them open.",
        "consul-tgw connections",
    ),
    CloseReason.INTERNAL: ("It ended with a worker, or by a mistake of ours.", "See the gateway's log.", ""),
    CloseReason.BAD_REQUEST: ("The client breaks the rules of HTTP.", "The access log has the details.", ""),
    CloseReason.BAD_RESPONSE: ("{service} breaks the rules of HTTP.", "Compare its protocol in service-defaults.", ""),
    CloseReason.FLOOD: ("The client misuses HTTP/2: resets, pings or empty frames without end.", "Find it.", ""),
    CloseReason.TOKEN_EXPIRED: (
        "The token that let the stream in has expired.",
        "The client has to come back with a new one; if that is too early, its issuer gives tokens that live longer.",
        "",
    ),
    CloseReason.REQUEST_TIMEOUT: (
        "{service} did not answer within its RequestTimeout.",
        "Look at it, or raise RequestTimeout in its service-resolver.",
        "consul config read -kind service-resolver -name {service}",
    ),
}
REFUSALS = frozenset(reason.value for reason in _SAID)
"""Reasons that an operator looks at: somebody wanted something and did not get it."""


def remedy(reason: str, *, service: str, source: str, gateway: str) -> Remedy:
    """For a ``reason`` of :data:`REFUSALS`."""
    why, advice, command = _SAID[CloseReason(reason)]
    names = {"service": service or "the service", "source": source or "the caller"}
    quoted = {key: shlex.quote(value) for key, value in (names | {"gateway": gateway}).items()}
    return Remedy(why.format_map(names), advice.format_map(names), command.format_map(quoted))
