"""The variables mean what they mean for Consul's own tools; what cannot be used is named with a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugin.addresses import HostPort
from plugin.errors import ConfigError
from plugin.settings import ConsulSettings, GatewaySettings


def consul(**environment: str) -> ConsulSettings:
    return ConsulSettings.from_environment(environment)


def gateway(**settings: Any) -> GatewaySettings:
    return GatewaySettings(**{"consul": ConsulSettings(), **settings})


def test_without_variables_it_is_the_local_agent() -> None:
    assert consul() == ConsulSettings(address="http://127.0.0.1:8500")


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"CONSUL_HTTP_ADDR": "10.0.0.1:8500"}, "http://10.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "[::1]:8500"}, "http://[::1]:8500"),
        ({"CONSUL_HTTP_ADDR": "consul.example"}, "http://consul.example"),
        ({"CONSUL_HTTP_ADDR": "https://consul.example:8501/"}, "https://consul.example:8501"),
        ({"CONSUL_HTTP_ADDR": "https://proxy.example/consul"}, "https://proxy.example/consul"),
        ({"CONSUL_HTTP_SSL": "true"}, "https://127.0.0.1:8500"),
        ({"CONSUL_HTTP_ADDR": "http://10.0.0.1:8501", "CONSUL_HTTP_SSL": "1"}, "https://10.0.0.1:8501"),
        ({"CONSUL_HTTP_ADDR": "https://10.0.0.1:8501", "CONSUL_HTTP_SSL": "false"}, "https://10.0.0.1:8501"),
        ({"CONSUL_HTTP_ADDR": "unix:///run/consul.sock", "CONSUL_HTTP_SSL": "true"}, "unix:///run/consul.sock"),
        ({"CONSUL_HTTP_ADDR": "", "CONSUL_HTTP_SSL": ""}, "http://127.0.0.1:8500"),
    ],
)
def test_the_address_has_its_scheme(variables: dict[str, str], address: str) -> None:
    assert consul(**variables).address == address


@pytest.mark.parametrize(
    "address",
    ["ftp://host", "unix://relative.sock", "http://", "host:port", "host:99999", "http://user@host:8500", "h?a=b"],
)
def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="CONSUL_HTTP_ADDR"):
        consul(CONSUL_HTTP_ADDR=address)


@pytest.mark.parametrize("address", ["http://{}@127.0.0.1:8500", "{}@127.0.0.1:port"])
def test_a_password_in_the_address_is_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match="CONSUL_HTTP_AUTH") as refused:
        consul(CONSUL_HTTP_ADDR=address.format("me:hunter2"))
    assert "hunter2" not in str(refused.value)


def test_every_other_variable() -> None:
    settings = consul(
        CONSUL_HTTP_TOKEN="secret-token",
        CONSUL_HTTP_TOKEN_FILE="/run/token",
        CONSUL_HTTP_AUTH="user:secret-password",
        CONSUL_CACERT="/ca.pem",
        CONSUL_CAPATH="/cas",
        CONSUL_CLIENT_CERT="/cert.pem",
        CONSUL_CLIENT_KEY="/key.pem",
        CONSUL_TLS_SERVER_NAME="server.dc1.consul",
        CONSUL_HTTP_SSL_VERIFY="false",
        CONSUL_NAMESPACE="billing",
        CONSUL_PARTITION="east",
    )
    assert settings == ConsulSettings(
        token="secret-token",
        token_file=Path("/run/token"),
        basic_auth="user:secret-password",
        ca_file=Path("/ca.pem"),
        ca_path=Path("/cas"),
        client_cert=Path("/cert.pem"),
        client_key=Path("/key.pem"),
        tls_server_name="server.dc1.consul",
        verify=False,
        namespace="billing",
        partition="east",
    )
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("name", ["CONSUL_HTTP_SSL", "CONSUL_HTTP_SSL_VERIFY"])
def test_a_truth_that_is_none_is_refused_rather_than_guessed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}='maybe'"):
        consul(**{name: "maybe"})


def test_half_a_client_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="CONSUL_CLIENT_CERT is set and CONSUL_CLIENT_KEY is not"):
        consul(CONSUL_CLIENT_CERT="/cert.pem")
    with pytest.raises(ConfigError, match="CONSUL_CLIENT_KEY is set and CONSUL_CLIENT_CERT is not"):
        consul(CONSUL_CLIENT_KEY="/key.pem")


def test_a_token_with_a_line_break_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="line break") as raised:
        consul(CONSUL_HTTP_TOKEN="secret\nmore")
    assert "secret" not in str(raised.value)


def test_a_gateway_is_its_service_unless_it_has_an_id() -> None:
    assert gateway(service="tgw").id == "tgw"
    assert gateway(service="tgw", service_id="tgw-1").id == "tgw-1"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"service": ""}, "--service"),
        ({"service": "*"}, "--service"),
        ({"service": "a/b"}, "--service"),
        ({"service_id": "a b\n"}, "--service-id"),
        ({"address": "localhost"}, "--address"),
        ({"port": 0}, "--address"),
        ({"port": 65_536}, "--address"),
        ({"admin_address": "here"}, "--admin-address"),
        ({"admin_port": -1}, "--admin-address"),
        ({"workers": -1}, "--workers"),
        ({"drain_timeout_s": -1.0}, "--drain-timeout"),
        ({"drain_timeout_s": float("nan")}, "--drain-timeout"),
        ({"drain_timeout_s": float("inf")}, "--drain-timeout"),
        ({"access_log": ""}, "--access-log"),
        ({"meta": {"a b": "c"}}, "--meta"),
        ({"meta": {"a": "c" * 513}}, "--meta"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as raised:
        gateway(**settings)
    assert str(raised.value).startswith(named)


def test_ipv6_addresses_and_a_chosen_admin_port_are_fine() -> None:
    assert gateway(address="::1", admin_address="::1", admin_port=0).address == "::1"


LAN, WAN = HostPort("10.0.0.5", 8443), HostPort("192.0.2.7", 443)
BOTH = {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_tagged_addresses": True}


def addressed(**settings: Any) -> GatewaySettings:
    return gateway(address=LAN.host, port=LAN.port, **settings)


def test_tagged_addresses_are_those_of_consuls_own_command() -> None:
    assert addressed().tagged_addresses() == {"lan": LAN}
    assert addressed(wan_address=WAN).tagged_addresses() == {"lan": LAN, "wan": WAN}
    assert gateway(address="0.0.0.0").tagged_addresses() == {}


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, {}),
        ({"wan_address": WAN}, BOTH),
        ({"wan_address": WAN, "proxy_config": {"connect_timeout_ms": 1}}, {**BOTH, "connect_timeout_ms": 1}),
        (
            {"wan_address": WAN, "proxy_config": {"envoy_gateway_no_default_bind": False}},
            {"envoy_gateway_no_default_bind": False},
        ),
        (
            {"bind_addresses": {"a": WAN}, "wan_address": WAN},
            {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_addresses": {"a": {"Address": WAN.host, "Port": WAN.port}},
            },
        ),
        (
            {"more_addresses": (WAN,)},
            {"envoy_gateway_bind_addresses": {"address-2": {"Address": WAN.host, "Port": WAN.port}}},
        ),
    ],
)
def test_the_address_flags_are_written_into_proxy_config(settings: dict[str, Any], config: dict[str, Any]) -> None:
    assert addressed(**settings).registered_proxy_config(lambda host: True) == config


def test_a_wan_address_of_somebody_else_is_registered_and_not_bound() -> None:
    assert addressed(wan_address=WAN).registered_proxy_config(lambda host: host == LAN.host) == {}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"wan_address": WAN, "register": False}, "--wan-address is registered"),
        ({"bind_addresses": {"a": WAN}, "more_addresses": (WAN,)}, "--bind-address replaces"),
        ({"bind_addresses": {"a": WAN}, "proxy_config": BOTH}, "--proxy-config says what to bind"),
    ],
)
def test_address_flags_that_contradict_each_other_are_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        addressed(**settings)
