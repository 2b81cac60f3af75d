"""Balancing and time limits of a service-resolver, from its JSON."""

from __future__ import annotations

import msgspec
import pytest

from plugin.assemble.resolver import balance, connect_timeout, half_closed_timeout, idle_timeout, max_lifetime
from plugin.consul.api import ServiceDefaults, ServiceResolver
from proxy.model import Balance, BalancePolicy, HashPolicy, HashSource


def resolver(load_balancer: str) -> ServiceResolver:
    raw = f'{{"Kind": "service-resolver", "Name": "db", "LoadBalancer": {load_balancer}}}'
    return msgspec.json.decode(raw, type=ServiceResolver)


@pytest.mark.parametrize("entry", [None, ServiceResolver(name="db"), resolver("null"), resolver('{"Policy": ""}')])
def test_round_robin_is_what_happens_without_a_policy(entry: ServiceResolver | None) -> None:
    assert balance(entry).value == Balance()
    assert balance(entry).warnings == ()


@pytest.mark.parametrize("policy", list(BalancePolicy))
def test_every_policy_of_consul_is_known(policy: BalancePolicy) -> None:
    setting = balance(resolver(f'{{"Policy": "{policy.value}"}}'))
    assert setting.value == Balance(policy)
    assert setting.warnings == ()


def test_an_unknown_policy_is_named() -> None:
    setting = balance(resolver('{"Policy": "fair"}'))
    assert setting.value == Balance()
    assert "'fair'" in setting.warnings[0]


def test_the_numbers_of_the_policies() -> None:
    least = balance(resolver('{"Policy": "least_request", "LeastRequestConfig": {"ChoiceCount": 4}}')).value
    assert least.choice_count == 4
    ring = balance(
        resolver('{"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 10, "MaximumRingSize": 20}}')
    ).value
    assert (ring.minimum_ring_size, ring.maximum_ring_size) == (10, 20)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_endpoints_cannot_be_compared(count: int) -> None:
    entry = resolver(f'{{"Policy": "least_request", "LeastRequestConfig": {{"ChoiceCount": {count}}}}}')
    assert balance(entry).value.choice_count == 2


def test_what_is_hashed_keeps_the_operators_order() -> None:
    entry = resolver(
        """{"Policy": "maglev", "HashPolicies": [
             {"Field": "query_parameter", "FieldValue": "user"},
             {"Field": "cookie", "FieldValue": "session", "CookieConfig": {"Session": true}, "Terminal": true},
             {"SourceIP": true}]}"""
    )
    setting = balance(entry)
    assert setting.warnings == ()
    assert setting.value.hash_policies == (
        HashPolicy(HashSource.QUERY_PARAMETER, "user"),
        HashPolicy(HashSource.COOKIE, "session", terminal=True, cookie_lifetime_s=0.0),
        HashPolicy(HashSource.SOURCE_IP),
    )


@pytest.mark.parametrize("element", ['{"Field": "colour", "FieldValue": "x"}', '{"Field": "header"}', "{}"])
def test_a_hash_policy_that_cannot_be_used_is_left_out_and_named(element: str) -> None:
    setting = balance(resolver(f'{{"Policy": "maglev", "HashPolicies": [{element}, {{"SourceIP": true}}]}}'))
    assert setting.value.hash_policies == (HashPolicy(HashSource.SOURCE_IP),)
    assert len(setting.warnings) == 1


@pytest.mark.parametrize(("value", "seconds"), [("15s", 15.0), (2_000_000_000, 2.0), ("", 0.0), (0, 0.0)])
def test_the_connect_timeout(value: str | int, seconds: float) -> None:
    assert connect_timeout(ServiceResolver(name="db", connect_timeout=value)).value == seconds
    assert connect_timeout(None).value == 0.0


@pytest.mark.parametrize("value", ["soon", "-1s", -5])
def test_a_timeout_that_cannot_be_used_is_named(value: str | int) -> None:
    setting = connect_timeout(ServiceResolver(name="db", connect_timeout=value))
    assert setting.value == 0.0
    assert "ConnectTimeout" in setting.warnings[0]


def test_the_idle_timeout_is_in_the_meta_of_service_defaults() -> None:
    assert idle_timeout(None).value == 0.0
    assert idle_timeout(ServiceDefaults(name="db")).value == 0.0
    assert idle_timeout(ServiceDefaults(name="db", meta={"tgw-idle-timeout": "350s"})).value == 350.0
    assert "tgw-idle-timeout" in idle_timeout(ServiceDefaults(meta={"tgw-idle-timeout": "x"})).warnings[0]


@pytest.mark.parametrize(
    ("text", "expected_s", "told"),
    [("5m", 300.0, False), ("0s", 0.0, False), ("", 3_600.0, False), ("x", 3_600.0, True), ("-1s", 3_600.0, True)],
)
def test_a_half_closed_connection_has_an_hour_unless_meta_says_otherwise(
    text: str, expected_s: float, told: bool
) -> None:
    assert half_closed_timeout(None).value == 3_600.0
    setting = half_closed_timeout(ServiceDefaults(name="db", meta={"tgw-half-closed-timeout": text}))
    assert (setting.value, bool(setting.warnings)) == (expected_s, told)


def test_the_maximum_lifetime_is_in_the_meta_of_service_defaults() -> None:
    assert max_lifetime(None).value == 0.0
    assert max_lifetime(ServiceDefaults(name="db")).value == 0.0
    assert max_lifetime(ServiceDefaults(name="db", meta={"tgw-max-lifetime": "12h"})).value == 43_200.0


@pytest.mark.parametrize("text", ["soon", "-1h", "10", "5 m"])
def test_a_lifetime_that_is_none_is_told_and_ignored(text: str) -> None:
    setting = max_lifetime(ServiceDefaults(name="db", meta={"tgw-max-lifetime": text}))
    assert setting.value == 0.0
    (warning,) = setting.warnings
    assert "tgw-max-lifetime of service-defaults" in warning
    assert "its default applies" in warning
