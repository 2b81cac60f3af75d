"""What filters select, on an instance as Consul reports it."""

from __future__ import annotations

import msgspec
import pytest

from plugin.assemble.bexpr import BexprError, compile_filter
from plugin.consul.api import HealthEntry

ENTRY = msgspec.json.decode(
    b"""{
      "Node": {"ID": "n-1", "Node": "vm1", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": {"rack": "r7"},
               "TaggedAddresses": {"lan": "10.0.0.1"}},
      "Service": {"ID": "db-1", "Service": "db", "Tags": ["primary", "v1"], "Address": "", "Port": 5432,
                  "Meta": {"version": "v1", "my key": "x"}, "Weights": {"Passing": 10, "Warning": 1},
                  "TaggedAddresses": {"wan": {"Address": "192.0.2.1", "Port": 15432}},
                  "EnableTagOverride": false, "Connect": {}},
      "Checks": [{"CheckID": "serfHealth", "Node": "vm1", "Name": "Serf", "Status": "passing", "Type": ""},
                 {"CheckID": "tcp", "Node": "vm1", "Name": "TCP", "Status": "warning", "ServiceID": "db-1",
                  "ServiceTags": ["primary"], "Type": "tcp", "Output": "connected"}]
    }""",
    type=HealthEntry,
)

BARE = msgspec.json.decode(b'{"Node": {"Node": "vm2"}, "Service": {"ID": "db-2", "Service": "db"}}', type=HealthEntry)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Service.Meta.version == v1", True),
        ('Service.Meta["version"] == "v1"', True),
        ('Service.Meta["my key"] == x', True),
        ("Service.Meta.version == v2", False),
        ("Service.Meta.version != v2", True),
        ("Service.Meta.absent == v1", False),
        ("Service.Meta.absent != v1", True),
        ("not Service.Meta.absent == v1", True),
        ("version in Service.Meta", True),
        ("Service.Meta contains absent", False),
        ("Service.Meta is not empty", True),
        ("primary in Service.Tags", True),
        ("Service.Tags contains secondary", False),
        ('"secondary" not in Service.Tags', True),
        ("Service.Tags is empty", False),
        ("Service.Port == 5432", True),
        ("Service.Port == `0x1538`", True),
        ("Service.Port != 5432", False),
        ("Service.EnableTagOverride == false", True),
        ("Service.Connect.Native == true", False),
        ("Service.Weights.Passing == 10", True),
        ("Service.TaggedAddresses.wan.Port == 15432", True),
        ("Service.TaggedAddresses.lan.Port == 1", False),
        ("Service.TaggedAddresses.lan.Port != 1", True),
        ("Service.Proxy.DestinationServiceName == db", False),
        ('Service.Kind == ""', True),
        ('Service.SocketPath == "" and Service.PeerName == ""', True),
        ('Node.PeerName != "" or Node.Partition != ""', False),
        ("Checks.ExposedPort == 0", True),
        ("Checks.Notes contains x", False),
        ("Checks.Output contains connect", True),
        ("Service.Proxy.Upstreams is empty", True),
        ("Service.Proxy.Upstreams.MeshGateway.Mode == local", False),
        ("Service.Proxy.Expose.Checks == false", True),
        ('Checks.Interval == "" and Checks.Timeout == "" and Checks.PeerName == ""', True),
        ("Node.Node == vm1", True),
        ("Node.Meta.rack matches `^r[0-9]$`", True),
        ("Node.Meta.rack matches `[0-9]`", True),
        ("Node.Meta.rack not matches `^r[0-9]$`", False),
        ("Service.Meta.version matches `V1`", False),
        ("Service.Meta.version matches `(?i)V1`", True),
        ("Node.TaggedAddresses.lan == `10.0.0.1`", True),
        ("vm in Node.Node", True),
        ("Checks.Status == warning", True),
        ("Checks.Status == critical", False),
        ("not Checks.Status == critical", True),
        ("Checks.Status != passing", True),
        ("primary in Checks.ServiceTags", True),
        ("Checks is empty", False),
        ("Service.Meta.version == v1 and Node.Meta.rack == r7", True),
        ("Service.Meta.version == v2 or (Node.Meta.rack == r7 and not Service.Port == 1)", True),
    ],
)
def test_what_a_filter_selects(text: str, expected: bool) -> None:
    assert compile_filter(text).matches(ENTRY) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Service.Meta.version == v1", False),
        ("Service.Meta.version matches `v1`", True),
        ("Service.Meta is empty", True),
        ("Service.Tags is empty", True),
        ("x in Service.Tags", False),
        ("Checks is empty", True),
        ("Checks.Status == passing", False),
        ("Service.Connect.Native == false", True),
        ('Service.Proxy.DestinationServiceName == ""', True),
        ("Service.Weights.Passing == 1", True),
    ],
)
def test_what_an_instance_without_fields_is(text: str, expected: bool) -> None:
    """``matches`` holds for an absent key: surprising, and what Consul answers."""
    assert compile_filter(text).matches(BARE) is expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Service.Nonsense == 1", "'Service.Nonsense' is not one"),
        ("Service.Port.x == 1", "'Service.Port.x' is not one"),
        ("Service.Namespace == default", "'Service.Namespace' is not one"),
        ("Service == db", "'==' cannot be used with 'Service'"),
        ("Service.Port matches `5`", "'matches' cannot be used"),
        ("Service.Port is empty", "'is empty' cannot be used"),
        ("Service.Address is empty", "'is empty' cannot be used"),
        ("Service.Tags == primary", "'==' cannot be used"),
        ("Service.Port == high", "'high' cannot be compared"),
        ("Service.EnableTagOverride == maybe", "'maybe' cannot be compared"),
        ("Service.Meta.version matches `(`", "not a regular expression of RE2"),
        ("Service.Meta.version matches `(?=a)`", "not a regular expression of RE2"),
        ("Service.Meta.version ==", "expected a value"),
    ],
)
def test_what_consul_would_refuse_is_refused(text: str, why: str) -> None:
    with pytest.raises(BexprError) as raised:
        compile_filter(text)
    assert why in str(raised.value)


def test_a_filter_of_a_thousand_alternatives_is_no_deeper_than_one_of_ten() -> None:
    assert compile_filter(" or ".join(["Node.Node == nobody"] * 5_000 + ["Node.Node == vm1"])).matches(ENTRY)
    assert not compile_filter(" and ".join(["Node.Node == vm1"] * 5_000 + ["Node.Node == nobody"])).matches(ENTRY)


@pytest.mark.parametrize(
    ("number", "expected"), [("`012470`", True), ("`0o12470`", True), ("`5_432`", True), ("`0b1`", False)]
)
def test_numbers_are_those_of_go(number: str, expected: bool) -> None:
    assert compile_filter(f"Service.Port == {number}").matches(ENTRY) is expected


@pytest.mark.parametrize("number", ['" 5 "', "9223372036854775808", "`5__0`", "`0x`", "`\u0665`"])
def test_what_go_does_not_read_as_a_number_is_refused(number: str) -> None:
    with pytest.raises(BexprError, match="cannot be compared"):
        compile_filter(f"Service.Port == {number}")


def test_a_regular_expression_that_is_no_text_is_refused() -> None:
    with pytest.raises(BexprError, match="not a regular expression"):
        compile_filter('Service.Meta.version matches "\\xff"')
