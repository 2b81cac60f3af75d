"""The paths of Consul's HTTP API that the gateway uses, and the ACL rule that each of them needs.

The rules are those of https://developer.hashicorp.com/consul/docs/security/acl/acl-rules, in Consul's policy
language, ready to be pasted into a policy. This module is pure: it builds and reads text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, unquote

from proxy.model import ServiceName

Params = tuple[tuple[str, str], ...]

ROOTS = "/v1/agent/connect/ca/roots"
SERVER_ROOTS = "/v1/connect/ca/roots"
"""The same, asked of the servers: the agent's own answer may be one that it remembers."""
INTENTIONS = "/v1/connect/intentions"
INTENTIONS_MATCH = "/v1/connect/intentions/match"
AGENT_SELF = "/v1/agent/self"
AUTHORIZE = "/v1/agent/connect/authorize"
REGISTER = "/v1/agent/service/register"
CATALOG_SERVICES = "/v1/catalog/services"
"""Asked without a filter, which costs the servers a third of what one costs that matches nothing. With a ``node-meta``
that no node has, Consul (1.21) wakes for nodes, and not for a service on a node that it knows already."""
CATALOG_DATACENTERS = "/v1/catalog/datacenters"
TOKEN_SELF = "/v1/acl/token/self"
CATALOG_REGISTER = "/v1/catalog/register"
CATALOG_DEREGISTER = "/v1/catalog/deregister"
CONFIG = "/v1/config"
INTENTIONS_CHECK = "/v1/connect/intentions/check"
PEERINGS = "/v1/peerings"
EXPORTED_SERVICES = "/v1/exported-services"
AUTHORIZE_ACL = "/v1/internal/acl/authorize"

CONSISTENT: Params = (("consistent", ""),)
"""Answered by the leader, once it has everything that was ever written."""

EXPORTED_SERVICES_PARAMS: Params = (("stale", ""),)
"""Answered by the server that is asked, from what it has: a follower that passed the question on to its leader would
leave token, index and wait behind (Consul 1.21), so that the leader refuses what nobody seems to have asked."""

NO_INTENTIONS: Params = (("filter", 'SourceName == ""'),)
"""Parameters that match nothing: the answer is empty, but its index still moves and still wakes."""

EVERY_NAMESPACE: Params = (("ns", "*"),)
"""For lists: links may lead into other namespaces than the gateway's. Not sent to Consul CE."""
DEFAULT_NAMESPACE: Params = (("ns", "default"),)
"""For ``proxy-defaults`` and ``mesh``, which a partition has once. Not sent to Consul CE."""

NODE_READ_RULE = 'node_prefix "" { policy = "read" }'


def _segment(text: str) -> str:
    return quote(text, safe="")


def leaf(service: str) -> str:
    return f"/v1/agent/connect/ca/leaf/{_segment(service)}"


def health(service: str) -> str:
    return f"/v1/health/service/{_segment(service)}"


def health_state(state: str) -> str:
    """Every check of the datacenter in that state: ``critical``, ``warning`` and so on."""
    return f"/v1/health/state/{_segment(state)}"


def health_connect(service: str) -> str:
    """Sidecars, connect-native instances and gateways of ``service``."""
    return f"/v1/health/connect/{_segment(service)}"


def health_node(node: str) -> str:
    return f"/v1/health/node/{_segment(node)}"


def catalog_node(node: str) -> str:
    return f"/v1/catalog/node/{_segment(node)}"


def gateway_services(gateway: str) -> str:
    return f"/v1/catalog/gateway-services/{_segment(gateway)}"


def config(kind: str, name: str = "") -> str:
    return f"/v1/config/{kind}/{_segment(name)}" if name else f"/v1/config/{kind}"


def agent_service(service_id: str) -> str:
    return f"/v1/agent/service/{_segment(service_id)}"


def tenancy(name: ServiceName) -> Params:
    """The query parameters that select the namespace and the partition of ``name``.

    The default ones are spelled out too: without them Consul Enterprise takes those of the token. The transport leaves
    them out for Consul CE, which refuses to hear of either.
    """
    return ("ns", name.namespace), ("partition", name.partition)


def service_rule(name: str, access: str, extra: str = "") -> str:
    """A line of a policy, in Consul's policy language."""
    return f'service "{name}" {{ policy = "{access}"{extra} }}'


def _intention_rule(name: str, access: str) -> str:
    return service_rule(name, "read", f', intentions = "{access}"')


_BY_RESOURCE: dict[str, Callable[[str, str], str]] = {
    "service": service_rule,
    "intention": _intention_rule,
    "node": lambda name, access: f'node "{name}" {{ policy = "{access}" }}',
    "agent": lambda name, access: f'agent "{name}" {{ policy = "{access}" }}',
    "mesh": lambda name, access: f'mesh = "{access}"',
    "peering": lambda name, access: f'peering = "{access}"',
    "operator": lambda name, access: f'operator = "{access}"',
}


def rule(resource: str, name: str, access: str) -> str:
    """The rule for a permission in the words of Consul's ACL system (``service``, ``intention``, ``mesh``)."""
    return _BY_RESOURCE[resource](name, access)


# Consul 1.11 and later say which permission is missing; 1.8 does so for writes only.
_LACKS = re.compile(r"lacks permission '(\w+):(\w+)'(?: on \"([^\"]*)\")?")
_MISSING = re.compile(r"Missing (\w+):(\w+) on (\S+)")

_BY_PATH: tuple[tuple[re.Pattern[str], Callable[[str], str]], ...] = (
    (re.compile(r"/v1/agent/connect/ca/leaf/(.+)"), lambda name: service_rule(name, "write")),
    (re.compile(r"/v1/catalog/gateway-services/(.+)"), lambda name: service_rule(name, "read")),
    (
        re.compile(r"/v1/config/(?:terminating-gateway|service-[a-z]+)/(.+)"),
        lambda name: service_rule(name, "read"),
    ),
    (re.compile(r"/v1/health/connect/(.+)"), lambda name: service_rule(name, "read")),
    (re.compile(r"/v1/health/(?:service|state)/(.+)"), lambda name: NODE_READ_RULE),
    (re.compile(r"/v1/agent/service/deregister/(.+)"), lambda name: service_rule(name, "write")),
    (re.compile(r"/v1/agent/service/(?!register$)(.+)"), lambda name: service_rule(name, "read")),
    (re.compile(r"/v1/peerings()"), lambda name: rule("peering", "", "read")),
    (re.compile(r"/v1/(?:config/)?exported-services()"), lambda name: rule("mesh", "", "read")),
    (re.compile(r"/v1/agent/self()"), lambda name: 'agent_prefix "" { policy = "read" }'),
)

_BY_PARAMETER: dict[str, tuple[str, Callable[[str], str]]] = {
    INTENTIONS_MATCH: ("name", lambda name: _intention_rule(name, "read")),
}


def missing_rule(path: str, params: Iterable[tuple[str, str]], message: str) -> str:
    """The rule that would have allowed the request, from Consul's own words or else from what was asked; empty
    when neither tells."""
    said = _LACKS.search(message) or _MISSING.search(message)
    if said is not None and said[1] in _BY_RESOURCE:
        return _BY_RESOURCE[said[1]](said[3] or "", said[2])
    if path in _BY_PARAMETER:
        wanted, rule = _BY_PARAMETER[path]
        return "\n".join(rule(value) for name, value in params if name == wanted)
    for pattern, of_name in _BY_PATH:
        if (found := pattern.fullmatch(path)) is not None:
            return of_name(unquote(found[1]))
    return ""
