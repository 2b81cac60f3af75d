"""Proxy.Config is read loosely, as Consul reads it, and never stops a gateway."""

from __future__ import annotations

import pytest

from plugin.assemble.proxy_config import upstream_config
from proxy.model import Keepalive

ENABLE = "envoy_gateway_remote_tcp_enable_keepalive"


def test_nothing_is_set() -> None:
    config = upstream_config({}, {})
    assert (config.connect_timeout_s, config.keepalive, config.warnings) == (None, None, ())


@pytest.mark.parametrize("value", [250, "250", 250.0, "0xfa"])
def test_a_number_may_be_written_in_many_ways(value: object) -> None:
    assert upstream_config({"connect_timeout_ms": value}, {}).connect_timeout_s == 0.25


@pytest.mark.parametrize("value", [True, "true", "1", 1, 1.0])
def test_a_truth_may_be_written_in_many_ways(value: object) -> None:
    assert upstream_config({ENABLE: value}, {}).keepalive == Keepalive()


@pytest.mark.parametrize("value", [False, "false", "0", 0, "", None])
def test_so_may_its_opposite(value: object) -> None:
    config = upstream_config({ENABLE: value}, {})
    assert config.keepalive is None
    assert config.warnings == ()


@pytest.mark.parametrize("value", ["soon", -1, "-1", [], {}, float("nan"), float("inf")])
def test_an_unusable_number_is_named_and_its_default_applies(value: object) -> None:
    config = upstream_config({"connect_timeout_ms": value}, {})
    assert config.connect_timeout_s is None
    assert len(config.warnings) == 1
    assert config.warnings[0].startswith("connect_timeout_ms = ")


def test_one_bad_value_leaves_the_others_alone() -> None:
    config = upstream_config({ENABLE: "perhaps", "connect_timeout_ms": 100}, {})
    assert config.connect_timeout_s == 0.1
    assert config.keepalive is None
    assert len(config.warnings) == 1


def test_the_gateways_own_keys_go_before_those_of_proxy_defaults() -> None:
    shared = {"connect_timeout_ms": 1000, ENABLE: True, "envoy_gateway_remote_tcp_keepalive_time": 30}
    config = upstream_config({"connect_timeout_ms": 500}, shared)
    assert config.connect_timeout_s == 0.5
    assert config.keepalive == Keepalive(time_s=30)


def test_zero_is_not_set() -> None:
    assert upstream_config({"connect_timeout_ms": 0}, {}).connect_timeout_s is None
