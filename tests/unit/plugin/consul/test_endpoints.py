"""Paths, and the ACL rule that each of them needs."""

from __future__ import annotations

import pytest

from plugin.consul import endpoints
from proxy.model import ServiceName


@pytest.mark.parametrize(
    ("path", "params", "said", "rule"),
    [
        (endpoints.leaf("db"), (), "Permission denied", 'service "db" { policy = "write" }'),
        (endpoints.leaf("a/b c"), (), "", 'service "a/b c" { policy = "write" }'),
        (endpoints.gateway_services("tgw"), (), "", 'service "tgw" { policy = "read" }'),
        (endpoints.config("terminating-gateway", "tgw"), (), "", 'service "tgw" { policy = "read" }'),
        (endpoints.config("service-resolver", "db"), (), "", 'service "db" { policy = "read" }'),
        (endpoints.health("db"), (), "", 'node_prefix "" { policy = "read" }'),
        (endpoints.AGENT_SELF, (), "", 'agent_prefix "" { policy = "read" }'),
        (endpoints.agent_service("tgw-1"), (), "", 'service "tgw-1" { policy = "read" }'),
        (
            endpoints.INTENTIONS_MATCH,
            (("by", "destination"), ("name", "db")),
            "Permission denied",
            'service "db" { policy = "read", intentions = "read" }',
        ),
        (
            endpoints.INTENTIONS_MATCH,
            (("name", "db"), ("name", "ldap")),
            "token with AccessorID 'x' lacks permission 'intention:read' on \"ldap\"",
            'service "ldap" { policy = "read", intentions = "read" }',
        ),
        (
            endpoints.REGISTER,
            (),
            "Permission denied: Missing service:write on tgw",
            'service "tgw" { policy = "write" }',
        ),
        (endpoints.AGENT_SELF, (), "lacks permission 'agent:read' on \"n1\"", 'agent "n1" { policy = "read" }'),
        ("/v1/config", (), "lacks permission 'mesh:write'", 'mesh = "write"'),
        ("/v1/somewhere", (), "Permission denied", ""),
        (endpoints.REGISTER, (), "Permission denied", ""),
    ],
)
def test_missing_rule_is_told_in_the_policy_language(
    path: str, params: tuple[tuple[str, str], ...], said: str, rule: str
) -> None:
    assert endpoints.missing_rule(path, params, said) == rule


def test_a_service_is_asked_for_in_its_own_namespace_and_partition() -> None:
    assert endpoints.tenancy(ServiceName("db", "team", "west")) == (("ns", "team"), ("partition", "west"))
    assert endpoints.tenancy(ServiceName("db")) == (("ns", "default"), ("partition", "default"))
