from __future__ import annotations

import pytest

from plugin.addresses import HostPort, bind_addresses, binds_itself
from plugin.errors import ConfigError

REGISTERED = HostPort("10.0.0.5", 8443)


@pytest.mark.parametrize("text", ["127.0.0.1:8443", "[::1]:443", "0.0.0.0:1", "[2001:db8::5]:65535"])
def test_an_address_is_printed_as_it_is_read(text: str) -> None:
    assert str(HostPort.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", ":8443", "10.0.0.5", "host:8443", "::1:8443", "[10.0.0.5]:8443", "10.0.0.5:", "10.0.0.5:x", "10.0.0.5:65536"],
)
def test_everything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="--address"):
        HostPort.parse(text, what="--address")


def test_port_0_only_where_the_kernel_may_choose() -> None:
    assert HostPort.parse("127.0.0.1:0", zero=True).port == 0
    with pytest.raises(ConfigError, match="port"):
        HostPort.parse("127.0.0.1:0")


def test_the_registered_address_is_bound() -> None:
    assert bind_addresses(REGISTERED, {}) == (REGISTERED,)


def test_bind_addresses_are_added_in_the_order_of_listener_names() -> None:
    config = {
        "envoy_gateway_bind_addresses": {
            "wan": {"Address": "10.1.0.5", "Port": "9443"},
            "a": {"address": "::1", "port": 1},
        }
    }
    assert bind_addresses(REGISTERED, config) == (HostPort("::1", 1), REGISTERED, HostPort("10.1.0.5", 9443))


def test_the_same_address_is_bound_once() -> None:
    config = {"envoy_gateway_bind_addresses": {"again": {"Address": "10.0.0.5", "Port": 8443}}}
    assert bind_addresses(REGISTERED, config) == (REGISTERED,)


@pytest.mark.parametrize("yes", [True, "true", "1", 1])
def test_the_default_can_be_left_out(yes: object) -> None:
    config = {
        "envoy_mesh_gateway_no_default_bind": yes,
        "envoy_gateway_bind_addresses": {"lan": {"Address": "10.1.0.5", "Port": 1}},
    }
    assert bind_addresses(REGISTERED, config) == (HostPort("10.1.0.5", 1),)


def test_nothing_left_to_bind_is_an_error() -> None:
    with pytest.raises(ConfigError, match="nothing to listen on"):
        bind_addresses(REGISTERED, {"envoy_gateway_no_default_bind": True})


def test_tagged_addresses_without_consuls_own_virtual_ones() -> None:
    tagged = {"lan": HostPort("10.2.0.5", 1), "consul-virtual:legacy": HostPort("240.0.0.1", 1)}
    bound = bind_addresses(REGISTERED, {"envoy_gateway_bind_tagged_addresses": True}, tagged)
    assert bound == (REGISTERED, HostPort("10.2.0.5", 1))


def test_an_unusable_bind_address_is_named() -> None:
    with pytest.raises(ConfigError, match=r"envoy_gateway_bind_addresses\['lan'\]"):
        bind_addresses(REGISTERED, {"envoy_gateway_bind_addresses": {"lan": {"Address": "nowhere", "Port": 1}}})
    with pytest.raises(ConfigError, match="must look like"):
        bind_addresses(REGISTERED, {"envoy_gateway_bind_addresses": "10.0.0.5:1"})


def test_of_several_listeners_for_one_address_the_first_by_name_remains() -> None:
    tagged = {"wan": HostPort("10.0.0.5", 8443), "lan": HostPort("10.2.0.5", 1)}
    config = {
        "envoy_gateway_bind_tagged_addresses": True,
        "envoy_gateway_bind_addresses": {"again": {"Address": "10.2.0.5", "Port": 1}},
    }
    assert bind_addresses(REGISTERED, config, tagged) == (HostPort("10.2.0.5", 1), REGISTERED)


def test_a_tagged_address_that_is_a_hostname_is_named() -> None:
    tagged = {"wan": HostPort("gw.example.com", 443)}
    with pytest.raises(ConfigError, match=r"TaggedAddresses\['wan'\]"):
        bind_addresses(REGISTERED, {"envoy_gateway_bind_tagged_addresses": True}, tagged)


def test_whether_the_configuration_says_what_to_bind() -> None:
    assert binds_itself({"envoy_mesh_gateway_no_default_bind": False})
    assert not binds_itself({"connect_timeout_ms": 1})
