"""The names are those that Consul's own programs build."""

from __future__ import annotations

import pytest

from plugin.assemble.server_names import destination_sni, peer_sni, service_sni
from proxy.model import ServiceName

TD = "11111111-2222-3333-4444-555555555555.consul"


@pytest.mark.parametrize(
    ("name", "subset", "sni"),
    [
        (ServiceName("db"), "", f"db.default.dc1.internal.{TD}"),
        (ServiceName("db"), "v1", f"v1.db.default.dc1.internal.{TD}"),
        (ServiceName("db", "billing"), "", f"db.billing.dc1.internal.{TD}"),
        (ServiceName("db", "billing", "east"), "", f"db.billing.east.dc1.internal-v1.{TD}"),
        (ServiceName("db", "default", "east"), "v1", f"v1.db.default.east.dc1.internal-v1.{TD}"),
        (ServiceName("DB"), "V1", f"v1.db.default.dc1.internal.{TD}"),
    ],
)
def test_a_service_and_its_subsets(name: ServiceName, subset: str, sni: str) -> None:
    assert service_sni(name, datacenter="DC1", trust_domain=TD.upper(), subset=subset) == sni


@pytest.mark.parametrize(
    ("address", "label"), [("10.0.0.1", "10-0-0-1"), ("db.example", "db-example"), ("2001:db8::1", "2001-db8--1")]
)
def test_each_address_of_a_destination(address: str, label: str) -> None:
    sni = destination_sni(ServiceName("db"), address, datacenter="dc1", trust_domain=TD)
    assert sni == f"destination.{label}.db.default.dc1.internal.{TD}"


def test_a_peer_spells_out_namespace_and_partition() -> None:
    assert peer_sni(ServiceName("db"), peer="West", trust_domain=TD) == f"db.default.default.west.external.{TD}"
