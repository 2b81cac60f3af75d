"""Links come from the entry; rows only say what ``*`` stands for."""

from __future__ import annotations

import msgspec

from plugin.assemble.links import Link, linked_services
from plugin.consul.api import CompoundName, GatewayService, LinkedService, TerminatingGatewayEntry
from proxy.model import ServiceName

EXPLICIT = LinkedService(name="partner-api", ca_file="/tls/partner.pem")
WILDCARD = LinkedService(name="*", ca_file="/tls/all.pem", cert_file="/c", key_file="/k", sni="all.example")


def row(name: str, *, kind: str = "", from_wildcard: bool = True, namespace: str = "default") -> GatewayService:
    return GatewayService(
        service=CompoundName(name=name, namespace=namespace), service_kind=kind, from_wildcard=from_wildcard
    )


def entry(*links: LinkedService, namespace: str = "default", partition: str = "default") -> TerminatingGatewayEntry:
    return TerminatingGatewayEntry(name="tgw", services=links, namespace=namespace, partition=partition)


def test_no_entry_links_nothing_whatever_the_rows_say() -> None:
    assert linked_services(None, (row("a"),)) == {}


def test_an_entry_without_services_links_nothing() -> None:
    assert linked_services(TerminatingGatewayEntry(name="tgw", services=None), (row("a"),)) == {}


def test_an_explicit_link_stands_without_a_row() -> None:
    assert linked_services(entry(EXPLICIT), ()) == {ServiceName("partner-api"): Link(EXPLICIT, False)}


def test_a_row_without_a_wildcard_adds_nothing() -> None:
    assert list(linked_services(entry(EXPLICIT), (row("stray"),))) == [ServiceName("partner-api")]


def test_an_explicit_link_overrides_the_wildcard_without_merging_fields() -> None:
    """The row claims the wildcard's ownership, as Consul writes it after an instance registers again."""
    links = linked_services(entry(WILDCARD, EXPLICIT), (row("partner-api"), row("legacy")))
    assert links[ServiceName("partner-api")] == Link(EXPLICIT, False)
    assert links[ServiceName("legacy")] == Link(WILDCARD, True)


def test_tls_fields_of_rows_are_never_taken() -> None:
    raw = b'[{"Service": {"Name": "legacy"}, "CAFile": "/row.pem", "SNI": "row", "FromWildcard": true}]'
    rows = msgspec.json.decode(raw, type=tuple[GatewayService, ...])
    plain = LinkedService(name="*")
    assert linked_services(entry(plain), rows) == {ServiceName("legacy"): Link(plain, True)}


def test_the_wildcard_never_becomes_consul_or_itself() -> None:
    assert linked_services(entry(WILDCARD), (row("consul"), row("*"))) == {}


def test_the_wildcard_expands_to_services_and_destinations_only() -> None:
    rows = (row("a", kind="service"), row("b", kind="destination"), row("c", kind="mesh-gateway"))
    assert set(linked_services(entry(WILDCARD), rows)) == {ServiceName("a"), ServiceName("b")}


def test_a_link_removed_from_under_the_wildcard_stays_linked_while_consul_rewrites_its_rows() -> None:
    links = linked_services(entry(WILDCARD), (row("partner-api", from_wildcard=False),))
    assert links == {ServiceName("partner-api"): Link(WILDCARD, True)}


def test_the_wildcard_stays_in_its_namespace_and_the_entry_in_its_partition() -> None:
    link = LinkedService(name="*", namespace="billing")
    rows = (row("a", namespace="billing"), row("b", namespace="default"))
    assert set(linked_services(entry(link, namespace="ops"), rows)) == {ServiceName("a", "billing")}
    assert linked_services(entry(link, partition="east"), rows) == {}


def test_a_link_without_a_namespace_has_that_of_its_entry() -> None:
    links = linked_services(entry(LinkedService(name="a", namespace=""), namespace="ops", partition="east"), ())
    assert list(links) == [ServiceName("a", "ops", "east")]


def test_the_first_of_two_links_to_one_service_counts() -> None:
    second = LinkedService(name="partner-api", ca_file="/other.pem")
    assert linked_services(entry(EXPLICIT, second), ())[ServiceName("partner-api")].link is EXPLICIT


def test_the_order_is_that_of_the_entry_then_by_name() -> None:
    links = linked_services(entry(WILDCARD, EXPLICIT), (row("z"), row("b")))
    assert [str(name) for name in links] == ["partner-api", "b", "z"]
