"""A URI is exactly what Consul writes, or refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.policy.identity import (
    Identity,
    IdentityError,
    MeshGateway,
    NotAService,
    caller_of,
    identity_of,
    parse_spiffe_id,
)

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
UNENCODED = "$&+,:;=@"
"""As Go's ``url.URL`` leaves it in a path."""
WEB = f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"


def test_a_service_of_the_default_partition() -> None:
    assert parse_spiffe_id(WEB) == Identity(DOMAIN, "web", "default", "default", "dc1")


def test_a_service_of_another_partition_and_namespace() -> None:
    identity = parse_spiffe_id(f"spiffe://{DOMAIN}/ap/East/ns/Billing/dc/dc2/svc/web")
    assert identity == Identity(DOMAIN, "web", "billing", "east", "dc2")


def test_the_letter_case_of_a_service_counts() -> None:
    assert parse_spiffe_id(f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/Web").service == "Web"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/agent/client/dc/dc1/id/node", "Consul client agent"),
        ("/ap/east/agent/client/dc/dc1/id/node", "Consul client agent"),
        ("/agent/server/dc/dc1", "Consul server"),
        ("/gateway/mesh/dc/dc1", "mesh gateway"),
        ("/ap/east/gateway/mesh/dc/dc1", "mesh gateway"),
        ("", "certificate authority"),
    ],
)
def test_other_identities_of_consul_are_named(path: str, kind: str) -> None:
    with pytest.raises(NotAService, match=kind) as raised:
        parse_spiffe_id(f"spiffe://{DOMAIN}{path}")
    assert raised.value.kind == kind


def test_a_mesh_gateway_is_a_caller_of_another_kind() -> None:
    uri = f"spiffe://{DOMAIN}/gateway/mesh/dc/dc%201"
    assert caller_of([uri]) == MeshGateway(DOMAIN, "dc 1")
    assert caller_of([uri.replace("/gateway", "/ap/East/gateway")]) == MeshGateway(DOMAIN, "dc 1", "east")
    assert caller_of([WEB]) == parse_spiffe_id(WEB)


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/mesh/dc/dc1/",
        "/gateway/mesh/dc/dc1/svc/web",
        "/gateway/mesh/dc/%64c1",
        "/gateway/mesh/dc/*",
        "/gateway/mesh/dc/a%2Fb",
        "/ap/default/gateway/mesh/dc/dc1",
        "/Gateway/mesh/dc/dc1",
        "/gateway/terminating/dc/dc1",
        "/agent/server/dc/dc1",
    ],
)
def test_what_is_nearly_a_mesh_gateway_is_nobody(path: str) -> None:
    with pytest.raises(IdentityError):
        caller_of([f"spiffe://{DOMAIN}{path}"])


def test_a_mesh_gateway_is_the_only_thing_that_its_certificate_names() -> None:
    with pytest.raises(IdentityError):
        caller_of([f"spiffe://{DOMAIN}/gateway/mesh/dc/dc1", WEB])


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "web",
        f"https://{DOMAIN}/ns/default/dc/dc1/svc/web",
        f"SPIFFE://{DOMAIN}/ns/default/dc/dc1/svc/web",
        f"{WEB}/",
        f"{WEB}?a=b",
        f"{WEB}#fragment",
        f"{WEB}?",
        f"{WEB}\n",
        f"{WEB}\x00",
        f" {WEB}",
        WEB.replace(DOMAIN, DOMAIN.upper()),
        WEB.replace("svc/web", "SVC/web"),
        WEB.replace("web", "%77eb"),
        WEB.replace("web", "a%2Fsvc%2Fb"),
        WEB.replace("web", "w%c3%a9b"),
        WEB.replace("web", "w:b").replace(":b", "%3Ab"),
        WEB.replace("web", "w!b"),
        WEB.replace("/ns/", "/ap/default/ns/"),
        WEB.replace("/ns/default", "/ns/d%65fault"),
        f"{WEB}%00",
        f"{WEB}%0a",
        f"{WEB}%7f",
        f"{WEB}%zz",
        f"{WEB}%",
        f"{WEB}%ff",
        f"{WEB}\u00e9",
        f"spiffe://user@{DOMAIN}/ns/default/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}:8443/ns/default/dc/dc1/svc/web",
        "spiffe:///ns/default/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}//ns/default/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/",
        f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web/svc/admin",
        f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/*",
        f"spiffe://{DOMAIN}/ns/%2a/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}/ns/default/dc/../svc/web",
        f"spiffe://{DOMAIN}/NS/default/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}/n%73/default/dc/dc1/svc/web",
        f"spiffe://{DOMAIN}/svc/web",
        f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/{'w' * 2048}",
    ],
)
def test_anything_else_is_refused(uri: str) -> None:
    with pytest.raises(IdentityError) as raised:
        parse_spiffe_id(uri)
    assert not isinstance(raised.value, NotAService)


def test_a_certificate_names_exactly_one_service() -> None:
    assert identity_of([WEB]).service == "web"
    with pytest.raises(IdentityError, match="no URI"):
        identity_of([])
    with pytest.raises(IdentityError, match="2 URIs"):
        identity_of([WEB, WEB])


_names = st.text(
    st.characters(min_codepoint=0x20, exclude_characters="/\x7f", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
).filter(lambda text: text not in {"*", ".", ".."})


@given(service=_names, datacenter=_names)
def test_what_is_written_is_what_is_read(service: str, datacenter: str) -> None:
    uri = f"spiffe://{DOMAIN}/ns/default/dc/{quote(datacenter, safe=UNENCODED)}/svc/{quote(service, safe=UNENCODED)}"
    assert parse_spiffe_id(uri) == Identity(DOMAIN, service, "default", "default", datacenter)


@given(st.text() | st.text(alphabet="spifed:/nsacvw%2Fg.*?#@").map(lambda tail: WEB[: len(WEB) // 2] + tail))
@example("\ud800")
@example("spiffe://" + "a" * 3000)
def test_any_text_is_an_identity_or_an_identity_error(uri: str) -> None:
    try:
        identity = parse_spiffe_id(uri)
    except IdentityError:
        return
    assert uri.startswith("spiffe://")
    assert identity.service
    assert "*" not in (identity.service, identity.namespace, identity.partition)
