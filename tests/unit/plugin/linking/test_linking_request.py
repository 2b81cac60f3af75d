from __future__ import annotations

from typing import Any

import pytest

from plugin.linking.edit import Refused
from plugin.linking.request import LinkRequest, parse_target


def request(**fields: Any) -> LinkRequest:
    return LinkRequest(**{"service": "billing-db", "host": "10.0.0.9", "port": 5432, **fields})


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("10.0.0.9:5432", ("10.0.0.9", 5432)),
        ("[fd00::9]:1", ("fd00::9", 1)),
        ("[FD00:0::9]:65535", ("fd00::9", 65535)),
        ("DB.Example.:5432", ("db.example", 5432)),
        ("db:5432", ("db", 5432)),
        ("_srv.db_1.example:5432", ("_srv.db_1.example", 5432)),
    ],
)
def test_addresses_hostnames_and_brackets(text: str, target: tuple[str, int]) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text",
    [
        "db", ":5432", "db:", "db:0", "db:65536", "db:000080123", "db:5 4", "db:+5", "db:\u0665", "fd00::9:5432",
        "[10.0.0.9]:5432", "[db]:5432", "0.0.0.0:5432", "[::]:5432", "224.0.0.1:5432", "10.0.0.999:5432", "a b:5432",
        "http://db:5432", "-db:5432", "[fe80::1%eth0]:5432", "[::1%A]:8", f"{'x' * 64}:5432",
    ],
)  # fmt: skip
def test_what_is_no_address_and_port(text: str) -> None:
    with pytest.raises(Refused):
        parse_target(text)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cert_file": "/c", "ca_file": "/a"}, "--cert and --key go together"),
        ({"key_file": "/k", "ca_file": "/a"}, "--cert and --key go together"),
        ({"cert_file": "/c", "key_file": "/k"}, "need --ca"),
        ({"sni": "db.example"}, "--sni needs --ca"),
        ({"service": ""}, "cannot be the name of a service"),
        ({"service": "a b"}, "cannot be the name of a service"),
        ({"service": "a/b"}, "cannot be the name of a service"),
        ({"service": "x" * 64}, "63 characters"),
        ({"service": "*"}, "\\* is not the name of one service"),
        ({"service": "consul"}, "Consul's own servers"),
        ({"service": "terminating-gateway"}, "linked to itself"),
        ({"gateway": "*"}, "\\* is not the name of one gateway"),
        ({"gateway": ""}, "cannot be the name of a gateway"),
        ({"allow": ("",)}, "--allow ''"),
        ({"allow": ("web", "ns/web")}, "--allow 'ns/web'"),
        ({"allow": ("terminating-gateway",)}, "the gateway itself"),
    ],
)
def test_what_could_not_work_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        request(**fields).check()


def test_every_reason_is_said_at_once() -> None:
    with pytest.raises(Refused) as refused:
        request(service="*", sni="x", cert_file="/c").check()
    assert len(refused.value.reasons) == 4


def test_what_works_but_is_weak_is_a_warning() -> None:
    assert request(ca_file="/a", sni="db.example").check() == ()
    warnings = request(service="a_b", ca_file="/a", allow=("*",)).check()
    assert [any(word in text for text in warnings) for word in ("DNS", "no --sni", "--allow *")] == [True] * 3


@pytest.mark.parametrize(
    ("host", "node"),
    [("10.0.0.9", "external-10-0-0-9"), ("fd00::9", "external-fd00-9"), ("db.example", "external-db-example")],
)
def test_the_node_is_named_after_the_host(host: str, node: str) -> None:
    assert request(host=host).node_name == node
    assert request(host=host, node="legacy").node_name == "legacy"
