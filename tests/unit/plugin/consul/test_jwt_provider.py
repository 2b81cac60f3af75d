"""jwt-provider entries as Consul 1.21 answers them, and what is no such entry."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.consul.strict import NotUnderstood
from plugin.jwks.provider import FileKeys, InlineKeys, ProviderSettings, RemoteKeys, by_name, read_provider
from proxy.rules import TokenLocation, TokenProvider
from tests.unit.plugin.assemble.test_plugin_permissions import JSON

URI = "https://login.example/keys"
LOCAL = {"Local": {"JWKS": base64.b64encode(b'{"keys":[]}').decode()}}


def entry(key_set: object = LOCAL, **fields: Any) -> dict[str, Any]:
    added = {"Kind": "jwt-provider", "Hash": 2**63, "CreateIndex": 1, "ModifyIndex": 2}
    return {**added, "Name": "okta", "JSONWebKeySet": key_set, **fields}


def remote(**fields: Any) -> dict[str, Any]:
    return entry({"Remote": {"URI": URI, **fields}})


def trusting(**fields: Any) -> dict[str, Any]:
    return remote(JWKSCluster={"TLSCertificates": {"TrustedCA": fields}})


def source_of(row: Any) -> Any:
    return read_provider(row).source


def test_an_entry_with_everything() -> None:
    row = entry(
        Issuer="https://i",
        Audiences=["a", "b"],
        Locations=[
            {"Header": {"Name": "X-Token", "ValuePrefix": "JWT", "Forward": True}},
            {"QueryParam": {"Name": "t"}},
            {"Cookie": {"Name": "c"}},
        ],
        Forwarding={"HeaderName": "X-Payload", "PadForwardPayloadHeader": True},
        ClockSkewSeconds=10,
        CacheConfig={"Size": 10},
        Meta={"team": "x"},
    )
    assert read_provider(row) == ProviderSettings(
        TokenProvider(
            name="okta",
            issuer="https://i",
            audiences=("a", "b"),
            locations=(
                TokenLocation(header="x-token", prefix="JWT", forward=True),
                TokenLocation(query_parameter="t"),
                TokenLocation(cookie="c"),
            ),
            clock_skew_s=10.0,
            forward_header="x-payload",
            pad_forward_header=True,
        ),
        InlineKeys(b'{"keys":[]}'),
    )


def test_the_least_entry_has_consuls_defaults() -> None:
    read = read_provider(entry())
    assert read.provider == TokenProvider(name="okta")
    assert read.provider.locations == (TokenLocation(header="authorization", prefix="Bearer"),)
    assert read.provider.clock_skew_s == 30.0


@pytest.mark.parametrize(("written", "skew_s"), [(0, 30.0), (-1, 0.0), (5, 5.0)])
def test_clock_skew(written: int, skew_s: float) -> None:
    assert read_provider(entry(ClockSkewSeconds=written)).provider.clock_skew_s == skew_s


def test_a_file_on_the_host() -> None:
    assert source_of(entry({"Local": {"Filename": "/keys.json"}})) == FileKeys("/keys.json")


def test_a_remote_key_set_as_consul_answers() -> None:
    read = source_of(
        remote(
            RequestTimeoutMs=500,
            CacheDuration=1_800_000_000_000,
            FetchAsynchronously=True,
            RetryPolicy={
                "NumRetries": 2,
                "RetryPolicyBackOff": {"BaseInterval": 2_000_000_000, "MaxInterval": 10_000_000_000},
            },
            JWKSCluster={
                "DiscoveryType": "STRICT_DNS",
                "ConnectTimeout": "250ms",
                "TLSCertificates": {"TrustedCA": {"InlineString": "PEM"}},
            },
        )
    )
    assert read == RemoteKeys(URI, 0.5, 0.25, 1800.0, 2.0, 10.0, ca_pem="PEM")


def test_a_remote_key_set_without_anything_else() -> None:
    assert source_of(remote()) == RemoteKeys(URI)
    assert source_of(remote(RequestTimeoutMs=-5, CacheDuration=-1)) == RemoteKeys(URI)
    assert source_of(remote(RequestTimeoutMs=10**9)).timeout_s == 60.0
    assert source_of(remote(CacheDuration=1)).cache_s == 1.0


PEM = "-----BEGIN CERTIFICATE-----\n"


@pytest.mark.parametrize(
    ("trusted", "field", "value"),
    [
        ({"Filename": "/ca.pem"}, "ca_file", "/ca.pem"),
        ({"EnvironmentVariable": "CA"}, "ca_variable", "CA"),
        ({"InlineString": PEM}, "ca_pem", PEM),
        ({"InlineBytes": base64.b64encode(PEM.encode()).decode()}, "ca_pem", PEM),
        ({"InlineBytes": base64.b64encode(base64.b64encode(PEM.encode())).decode()}, "ca_pem", PEM),
    ],
    ids=["file", "variable", "text", "bytes", "bytes twice encoded"],
)
def test_what_a_remote_key_sets_server_is_verified_with(trusted: dict[str, str], field: str, value: str) -> None:
    read = source_of(trusting(**trusted))
    assert {name: getattr(read, name) for name in ("ca_pem", "ca_file", "ca_variable")} == {
        **{"ca_pem": "", "ca_file": "", "ca_variable": ""},
        field: value,
    }


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (entry(RequireExpiration=True), "RequireExpiration"),
        (entry({**LOCAL, "Remote": {"URI": URI}}), "exactly one of Local and Remote"),
        (entry({}), "exactly one of Local and Remote"),
        (entry({"Local": {}}), "exactly one of JWKS and Filename"),
        (entry({"Local": {"JWKS": "%"}}), "not base64"),
        (entry({"Vault": {}}), "Vault"),
        (entry(Locations=[{}]), "exactly one of Header, QueryParam and Cookie"),
        (entry(Locations=[{"Header": {"Name": "a"}, "Cookie": {"Name": "b"}}]), "exactly one of Header"),
        (entry(Locations=[{"Header": {"Name": "a b"}}]), "no name of a header"),
        (entry(Locations=[{"QueryParam": {"Name": ""}}]), "QueryParam without Name"),
        (entry(Forwarding={"HeaderName": "a\r\nb"}), "no name of a header"),
        (entry(Audiences="a"), "Audiences"),
        (entry(Issuer=5), "Issuer"),
        (remote(URI="ftp://x/"), "not of http:// or https://"),
        (remote(URI="file:///etc/passwd"), "not of http:// or https://"),
        (remote(URI="https:///keys"), "not of http:// or https://"),
        (remote(URI="https://x:99999/"), "not of http:// or https://"),
        (remote(URI="https://[x/"), "not of http:// or https://"),
        (remote(URI="https://x/ HTTP/1.1\r\nA: b"), "not of http:// or https://"),
        (remote(URI="https://me@x/"), "a user's name"),
        (remote(CacheDuration="soon"), "CacheDuration"),
        (remote(Proxy="x"), "Proxy"),
        (trusting(), "exactly one of Filename"),
        (trusting(Filename="a", InlineString="b"), "exactly one of Filename"),
        (trusting(InlineBytes=base64.b64encode(b"\xff").decode()), "InlineBytes"),
        (remote(JWKSCluster={"TLSCertificates": {"CaCertificateProviderInstance": {}}}), "only an Envoy"),
    ],
)
def test_what_is_not_understood_is_named(row: dict[str, Any], why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        read_provider(row)


def test_rows_without_a_name_are_passed_over() -> None:
    row = entry()
    assert by_name([None, 5, {}, {"Name": 5}, [], row]) == {"okta": row}


KEY_SETS = st.fixed_dictionaries({}, optional={
    "Local": JSON | st.fixed_dictionaries({}, optional={"JWKS": JSON, "Filename": JSON}),
    "Remote": JSON | st.fixed_dictionaries({"URI": JSON | st.just(URI)}, optional={
        "CacheDuration": JSON, "RequestTimeoutMs": JSON, "RetryPolicy": JSON,
        "JWKSCluster": JSON | st.fixed_dictionaries({}, optional={"TLSCertificates": JSON, "ConnectTimeout": JSON}),
    }),
})  # fmt: skip


@given(JSON | st.builds(entry, KEY_SETS, Issuer=JSON, Locations=JSON | st.just([]), Forwarding=JSON))
def test_whatever_a_row_is_it_is_read_or_refused(row: object) -> None:
    try:
        read = read_provider(row)
    except NotUnderstood:
        return
    assert read.provider.name == "okta"
