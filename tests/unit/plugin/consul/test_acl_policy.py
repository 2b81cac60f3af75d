"""The policy follows from the entry, the expansion of ``*`` and the intentions, and from nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from plugin.acl_policy import Policy, Rule, read_policy
from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden, ConsulUnavailable
from tests.support.fake_consul import FakeConsul, status

ENTRY = endpoints.config("terminating-gateway", "tgw")
ROWS = endpoints.gateway_services("tgw")
NODES = 'node_prefix "" { policy = "read" }'


def matches(*hidden: str) -> Any:
    """``hidden`` have an intention from ``*``."""

    def answer(request: web.Request) -> dict[str, Any]:
        return {
            name: [{"SourceName": "*", "DestinationName": name, "Action": "deny"}] if name in hidden else None
            for name in request.query.getall("name")
        }

    return answer


def linked(*names: str) -> dict[str, Any]:
    return {"Kind": "terminating-gateway", "Name": "tgw", "Services": [{"Name": name} for name in names]}


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[endpoints.INTENTIONS_MATCH] = matches()
        yield consul


async def read(fake: FakeConsul) -> Policy:
    async with ConsulClient(fake.settings) as client:
        return await read_policy(client, "tgw")


def rules(policy: Policy) -> list[str]:
    return [line for line in policy.hcl().splitlines() if line and not line.startswith("#")]


async def test_one_rule_for_each_linked_service(fake: FakeConsul) -> None:
    fake.values[ENTRY] = linked("ldap", "db", "tgw")
    policy = await read(fake)
    written = [f'service "{name}" {{ policy = "write" }}' for name in ("tgw", "db", "ldap")]
    assert rules(policy) == [*written, NODES]
    assert json.loads(policy.json()) == {
        "service": {name: {"policy": "write"} for name in ("tgw", "db", "ldap")},
        "node_prefix": {"": {"policy": "read"}},
    }
    assert fake.asked(ROWS) == [], "only * needs them"


async def test_a_wildcard_needs_a_prefix_and_says_why(fake: FakeConsul) -> None:
    fake.values[ENTRY] = linked("db", "*")
    fake.values[ROWS] = [{"Service": {"Name": "found"}, "FromWildcard": True}]
    policy = await read(fake)
    assert rules(policy) == ['service_prefix "" { policy = "write" }', NODES]
    assert "# * is linked" in policy.hcl()


async def test_without_an_entry_the_gateway_alone(fake: FakeConsul) -> None:
    policy = await read(fake)
    assert rules(policy) == ['service "tgw" { policy = "write" }', NODES]
    assert "no terminating-gateway entry tgw yet" in policy.hcl()


@pytest.mark.parametrize(
    ("hidden", "needed"), [(("tgw", "db"), True), (("tgw",), False), (("db",), False), ((), False)]
)
async def test_the_agent_is_read_only_where_intentions_hide_the_default(
    fake: FakeConsul, hidden: tuple[str, ...], needed: bool
) -> None:
    fake.values[ENTRY] = linked("db")
    fake.values[endpoints.INTENTIONS_MATCH] = matches(*hidden)
    assert ('agent_prefix "" { policy = "read" }' in rules(await read(fake))) is needed


async def test_what_cannot_be_read_is_not_taken_for_nothing(fake: FakeConsul) -> None:
    fake.fail(ENTRY, status(403, "Permission denied"))
    with pytest.raises(ConsulForbidden) as caught:
        await read(fake)
    assert caught.value.rule == 'service "tgw" { policy = "read" }'
    fake.values[ENTRY] = linked("db")
    fake.values[endpoints.INTENTIONS_MATCH] = {"db": []}
    with pytest.raises(ConsulUnavailable, match="intentions of tgw"):
        await read(fake)


def test_namespaces_and_odd_names_are_written_as_consul_reads_them() -> None:
    policy = Policy(
        "tgw",
        True,
        (
            Rule("service", 'a"b', "write", "why"),
            Rule("service", "db", "write", "why", "team"),
            Rule("node_prefix", "", "read", "nodes", "team"),
        ),
    )
    assert policy.hcl().splitlines()[1:] == [
        "",
        "# why",
        r'service "a\"b" { policy = "write" }',
        "",
        'namespace "team" {',
        "  # why",
        '  service "db" { policy = "write" }',
        "",
        "  # nodes",
        '  node_prefix "" { policy = "read" }',
        "}",
    ]
    assert json.loads(policy.json()) == {
        "service": {'a"b': {"policy": "write"}},
        "namespace": {"team": {"service": {"db": {"policy": "write"}}, "node_prefix": {"": {"policy": "read"}}}},
    }
