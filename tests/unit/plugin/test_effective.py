from __future__ import annotations

from collections.abc import Mapping

import pytest
from click import Context

from plugin.addresses import HostPort
from plugin.cli.run import gateway_settings, given_flags, run
from plugin.consul.api import AccessLogs
from plugin.effective import Effective, Setting, effective
from plugin.errors import ConfigError
from plugin.known_keys import KEYS, OF_ENVOY, doubtful_keys, doubtful_variables
from plugin.settings import ConsulSettings, GatewaySettings

REQUIRED = ("--service", "gw", "--address", "10.0.0.5:8443")


def shown(*arguments: str, environment: Mapping[str, str] | None = None, **facts: object) -> dict[str, Setting]:
    context: Context = run.make_context("run", [*REQUIRED, *arguments])
    settings = gateway_settings(context.params, given_flags(context))
    found: Effective = effective(settings, environment or {}, **facts)  # type: ignore[arg-type]
    return {one.name: one for one in (*found.settings, *found.consul, *found.proxy_config)}


def test_every_flag_of_run_is_shown() -> None:
    flags = {max(one.opts, key=len) for one in run.params} - {"--proxy-config"}
    assert flags <= shown().keys()


def test_each_setting_says_where_it_comes_from() -> None:
    found = shown("--workers", "3", "--max-connections=0", "--access-log=off", "--allow-debugging")
    assert found["--workers"] == Setting("--workers", "3", "flag", "--workers")
    assert found["--max-connections"] == Setting("--max-connections", "no limit", "flag", "--max-connections")
    assert found["--access-log"] == Setting("--access-log", "off", "flag", "--access-log")
    assert found["--allow-debugging"].value == "true"
    assert found["--drain-delay"] == Setting("--drain-delay", "5", "default")
    assert found["--max-pending-handshakes"] == Setting("--max-pending-handshakes", "3000", "default")
    assert found["--address"].value == "10.0.0.5:8443"
    assert found["--service-id"] == Setting("--service-id", "gw", "default")
    assert shown()["--access-log"].origin == "default"
    assert shown(access_logs=AccessLogs())["--access-log"].where == "proxy-defaults"


def test_consul_comes_from_its_variables_and_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "CONSUL_HTTP_ADDR": "10.0.0.1:8500",
        "CONSUL_HTTP_TOKEN": "a-token-for-nobody",
        "CONSUL_TGW_ADMIN_TOKEN": "another-token-for-nobody",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = shown(environment=environment)
    assert found["CONSUL_HTTP_ADDR"] == Setting(
        "CONSUL_HTTP_ADDR", "http://10.0.0.1:8500", "environment variable", "CONSUL_HTTP_ADDR"
    )
    assert found["CONSUL_HTTP_TOKEN"].value == found["--admin-token-file"].value == "(set, not shown)"
    assert found["--admin-token-file"].where == "CONSUL_TGW_ADMIN_TOKEN"
    assert found["CONSUL_CACERT"] == Setting("CONSUL_CACERT", "none", "default")
    assert not [one for one in found.values() if "for-nobody" in one.value]


def test_keys_of_proxy_config_come_from_three_places() -> None:
    flag = ("--proxy-config", '{"connect_timeout_ms": 250}')
    assert shown(*flag)["connect_timeout_ms"] == Setting("connect_timeout_ms", "250", "flag", "--proxy-config")
    keepalive = "envoy_gateway_remote_tcp_keepalive_time"
    found = shown("--no-register", registered={keepalive: 9}, shared={keepalive: 8, "connect_timeout_ms": 7})
    assert found[keepalive] == Setting(keepalive, "9", "Consul", "Proxy.Config of the registration")
    assert found["connect_timeout_ms"] == Setting("connect_timeout_ms", "7", "Consul", "Config of proxy-defaults")
    assert shown()[keepalive].origin == "default"
    # What to bind is of one gateway: proxy-defaults have no say in it.
    assert shown(shared={"envoy_gateway_no_default_bind": True})["envoy_gateway_no_default_bind"].origin == "default"
    bound = GatewaySettings(consul=ConsulSettings(), bind_addresses={"a": HostPort("10.0.0.6", 1)})
    derived = effective(bound, {}, registered=bound.registered_proxy_config(lambda host: True)).proxy_config
    assert [one.where for one in derived if one.name == "envoy_gateway_bind_addresses"] == ["the address flags"]


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ('{"conect_timeout_ms": 1}', "conect_timeout_ms is no key of Proxy.Config; did you mean connect_timeout_ms?"),
        ('{"envoy_gateway_bind_adresses": {}}', "did you mean envoy_gateway_bind_addresses?"),
        ('{"qqq": 1}', "qqq is no key of Proxy.Config; those that have an effect are connect_timeout_ms"),
    ],
)
def test_an_unknown_key_of_our_own_is_an_error_with_a_suggestion(config: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shown("--proxy-config", config)
    assert complaint in str(caught.value)


def test_keys_of_envoy_are_known() -> None:
    assert "connect_timeout_ms" in shown("--proxy-config", '{"envoy_prometheus_bind_addr": "0.0.0.0:9102"}')
    assert list(doubtful_keys(dict.fromkeys((*KEYS, *OF_ENVOY)), dict.fromkeys((*KEYS, *OF_ENVOY)))) == []


def test_what_others_have_written_is_only_doubted() -> None:
    own = {"protokol": "tcp", "envoy_mesh_gateway_bind_addresses": {}}
    shared = {"some_key_of_a_sidecar": 1, "connect_timeout_m": 5, "envoy_gateway_new": 1}
    assert list(doubtful_keys(own, shared)) == [
        "Proxy.Config of the registration: protokol is no key of Proxy.Config; did you mean protocol?",
        "Config of proxy-defaults: connect_timeout_m is no key of Proxy.Config; did you mean connect_timeout_ms?",
        "Config of proxy-defaults: envoy_gateway_new is no key of Proxy.Config",
    ]


def test_a_variable_that_is_almost_one_is_doubted() -> None:
    assert list(
        doubtful_variables({"CONSUL_HTTP_TOKN": "x", "CONSUL_ROLE": "x", "PATH": "x", "CONSUL_GRPC_ADDR": "x"})
    ) == ["the environment variable CONSUL_HTTP_TOKN is read by nobody; did you mean CONSUL_HTTP_TOKEN?"]
    assert list(doubtful_variables({"CONSUL_HTTP_TOKN": "x", "CONSUL_HTTP_TOKEN": "y"})) == []
