"""An address that is accepted has a port and a host that is an IP address or a hostname, and its text reads back."""

from __future__ import annotations

import ipaddress

from plugin.addresses import HostPort, bind_addresses
from plugin.errors import ConfigError
from plugin.linking.edit import Refused
from plugin.linking.request import LinkRequest, parse_target

CODE = ("plugin.addresses", "plugin.linking.request")


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    _bound(text)
    _linked(text)


def _bound(text: str) -> None:
    try:
        at = HostPort.parse(text)
    except ConfigError:
        return
    assert 0 < at.port < 65_536
    assert str(ipaddress.ip_address(at.host)) == at.host
    assert HostPort.parse(str(at)) == at
    assert bind_addresses(at, {"envoy_gateway_bind_addresses": {"a": {"Address": at.host, "Port": at.port}}}) == (at,)


def _linked(text: str) -> None:
    try:
        host, port = parse_target(text)
    except Refused:
        return
    assert 0 < port < 65_536
    request = LinkRequest(service="db", host=host, port=port)
    assert parse_target(request.address) == (host, port)
    assert host == host.lower()
    assert not set(host) & set(" /\\\"'${}[]\0\n\r\t%")
    request.check()
    assert request.node_name.startswith("external-")
