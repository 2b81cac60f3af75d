"""What the external service is told, and what the gateway answers itself."""

from __future__ import annotations

import re

import pytest

from proxy.errors import UpstreamError
from proxy.http import replies
from proxy.http.content import is_grpc
from proxy.http.forward import client_certificate_element, new_request_id, request_for, response_for
from proxy.http.hash_key import hash_key
from proxy.http.message import Headers, RequestHead, ResponseHead, Version
from proxy.http.policy.tokens import Accepted
from proxy.http.replies import Reply, response
from proxy.http.retry import may_repeat, repeatable
from proxy.model import CloseReason, HashPolicy, HashSource

OWN = b"By=spiffe://x/db;Hash=00"


def head(
    *headers: tuple[bytes, bytes], method: bytes = b"GET", target: bytes = b"/a?b=c", **fields: object
) -> RequestHead:
    return RequestHead(method, target, b"service", Version.HTTP_1_1, list(headers), **fields)  # type: ignore[arg-type]


def sent(request: RequestHead, *, own: bytes = OWN, tokens: Accepted | None = None) -> RequestHead:
    return request_for(
        request, authority=b"db", client_certificate=own, request_id=b"made", scheme=b"http", tokens=tokens
    )


def test_one_element_says_who_the_caller_is_as_envoy_does() -> None:
    element = client_certificate_element(
        by="spiffe://td/svc/db",
        leaf_der=b"certificate",
        chain_pem=("-----BEGIN A-----\nb+/=\n", "second\n"),
        subject='CN=a "quoted"\\name',
        uris=("spiffe://td/svc/web",),
        names=("web.example",),
    )
    assert element == (
        b"By=spiffe://td/svc/db;Hash=03d66dd08835c1ca3f128cceacd1f31ac94163096b20f445ae84285bc0832d72"
        b';Cert="-----BEGIN%20A-----%0Ab%2B%2F%3D%0A";Chain="-----BEGIN%20A-----%0Ab%2B%2F%3D%0Asecond%0A"'
        b';Subject="CN=a \\"quoted\\"\\\\name";URI=spiffe://td/svc/web;DNS=web.example'
    )


FORGED = "x;URI=spiffe://td/svc/admin"


@pytest.mark.parametrize(
    "name",
    [
        FORGED,
        "x,By=td/svc/db;URI=spiffe://td/svc/admin",
        "x\r\nx-admin: yes",
        'x"',
        "x y",
        "",
        "ä.example",
        "a..b",
    ],
)
def test_a_caller_writes_nothing_of_its_own_by_its_dns_names(name: str) -> None:
    """Consul signs the DNS names that a service asks for."""
    element = client_certificate_element(
        by="spiffe://td/svc/db",
        leaf_der=b"",
        chain_pem=(),
        subject="",
        uris=("spiffe://td/svc/web",),
        names=(name, "ok"),
    )
    assert element.endswith(b';Subject="";URI=spiffe://td/svc/web;DNS=ok')


def test_what_separates_fields_is_quoted_and_no_line_begins() -> None:
    element = client_certificate_element(
        by="spiffe://td/svc/a,b", leaf_der=b"", chain_pem=(), subject=f"CN={FORGED}\r\n", uris=("x;y=z",), names=()
    )
    by, *_ = element.split(b";Hash")
    assert by == b'By="spiffe://td/svc/a,b"'
    assert element.endswith(b';Subject="CN=x;URI=spiffe://td/svc/admin\\\\0D\\\\0A";URI="x;y=z"')


def test_what_the_caller_sent_goes_on_and_what_is_missing_is_added() -> None:
    request = head((b"traceparent", b"00-1"), (b"x-forwarded-for", b"1.2.3.4"), (b"via", b"1.0 a"))
    told = sent(request)
    assert (told.method, told.target, told.authority, told.scheme) == (b"GET", b"/a?b=c", b"db", b"http")
    assert told.headers == [
        *request.headers,
        (b"x-forwarded-proto", b"https"),
        (b"x-request-id", b"made"),
        (b"x-forwarded-client-cert", OWN),
    ]
    assert request.authority == b"service"


def test_what_is_there_already_is_kept() -> None:
    told = sent(head((b"x-request-id", b"mine"), (b"x-forwarded-proto", b"http")))
    assert told.values(b"x-request-id") == [b"mine"]
    assert told.values(b"x-forwarded-proto") == [b"http"]


def test_elements_of_a_chain_of_proxies_become_one_header_in_order() -> None:
    told = sent(head((b"x-forwarded-client-cert", b"By=a"), (b"accept", b"*/*"), (b"x-forwarded-client-cert", b"By=b")))
    assert told.values(b"x-forwarded-client-cert") == [b"By=a,By=b," + OWN]


def test_sanitized_nothing_is_said_about_certificates() -> None:
    told = sent(head((b"x-forwarded-client-cert", b"By=a"), (b"x_forwarded_client_cert", b"By=b")), own=b"")
    assert [name for name, _ in told.headers] == [b"x-forwarded-proto", b"x-request-id"]


def test_what_sidecars_say_to_each_other_ends_here() -> None:
    told = sent(
        head((b"x-envoy-expected-rq-timeout-ms", b"1"), (b"x-envoyage", b"2"), (b"x-envoy-attempt-count", b"1"))
    )
    assert [name for name, _ in told.headers if name.startswith(b"x-envoy")] == [b"x-envoyage"]


def test_a_token_is_taken_out_and_its_payload_put_in() -> None:
    tokens = Accepted(float("inf"), frozenset({b"authorization"}), [(b"x-payload", b"e30")])
    told = sent(head((b"authorization", b"Bearer x"), (b"accept", b"*/*")), tokens=tokens)
    assert told.values(b"authorization") == []
    assert told.values(b"x-payload") == [b"e30"]


def test_ids_are_random_uuids() -> None:
    ids = {new_request_id() for _ in range(300)}
    assert len(ids) == 300
    form = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(one) for one in ids)


def test_a_response_gets_a_date_only_where_it_has_none() -> None:
    dated = ResponseHead(200, [(b"date", b"then")])
    assert response_for(dated, []) is dated
    undated = response_for(ResponseHead(200, [(b"server", b"x")], length=5), [(b"set-cookie", b"a=b")])
    assert [name for name, _ in undated.headers] == [b"server", b"set-cookie", b"date"]
    assert undated.length == 5


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc; a=b", True),
        (b"application/grpc-web", False),
        (b"application/json", False),
    ],
)
def test_who_speaks_grpc(content_type: bytes, expected: bool) -> None:
    assert is_grpc(head((b"content-type", content_type))) is expected


def test_answers_of_the_gateway() -> None:
    told, body = response(replies.DENIED, head())
    assert (told.status, told.length, body) == (403, 19, b"RBAC: access denied")
    assert (b"content-type", b"text/plain") in told.headers
    told, body = response(replies.DENIED, head(method=b"HEAD"))
    assert (told.length, told.announced_length, body) == (0, 19, b"")
    told, body = response(replies.TIMEOUT, head((b"content-type", b"application/grpc")))
    assert (told.status, body) == (200, b"")
    assert told.headers[:3] == [
        (b"content-type", b"application/grpc"),
        (b"grpc-status", b"14"),
        (b"grpc-message", b"upstream request timeout"),
    ]


def test_a_message_of_grpc_is_percent_encoded() -> None:
    told, _ = response(Reply(400, "50 % of\n\u00fc"), head((b"content-type", b"application/grpc")))
    assert told.values(b"grpc-message") == [b"50 %25 of%0A%C3%BC"]
    assert told.values(b"grpc-status") == [b"13"]


RESET = UpstreamError(CloseReason.UPSTREAM_RESET, "")


@pytest.mark.parametrize(
    ("request_head", "error", "reused", "expected"),
    [
        (head(), RESET, True, True),
        (head(method=b"DELETE"), RESET, True, True),
        (head(), RESET, False, False),
        (head(method=b"POST"), RESET, True, False),
        (head(method=b"PUT", length=3), RESET, True, False),
        (head(upgrade=b"websocket"), RESET, True, False),
        (head(), UpstreamError(CloseReason.BAD_RESPONSE, ""), True, False),
    ],
)
def test_what_may_be_sent_twice(request_head: RequestHead, error: UpstreamError, reused: bool, expected: bool) -> None:
    assert may_repeat(request_head, error, reused=reused) is expected
    assert repeatable(request_head) or not expected


USER = HashPolicy(HashSource.HEADER, "x-user")
COOKIE = HashPolicy(HashSource.COOKIE, "sid")
QUERY = HashPolicy(HashSource.QUERY_PARAMETER, "id")
ADDRESS = HashPolicy(HashSource.SOURCE_IP)


@pytest.mark.parametrize(
    ("policies", "headers", "target", "key"),
    [
        ((USER,), [(b"x-user", b"ann")], b"/", "ann"),
        ((USER,), [], b"/", ""),
        ((USER,), [(b"x-user", b"b"), (b"x-user", b"a")], b"/", "a,b"),
        ((COOKIE,), [(b"cookie", b"a=1; sid=7"), (b"cookie", b"sid=8")], b"/", "7"),
        ((QUERY,), [], b"/?x=1&id=5&id=6", "5"),
        ((ADDRESS, USER), [(b"x-user", b"ann")], b"/", "10.0.0.1\0ann"),
        ((HashPolicy(HashSource.HEADER, "x-user", terminal=True), ADDRESS), [(b"x-user", b"ann")], b"/", "ann"),
        ((HashPolicy(HashSource.HEADER, "x-user", terminal=True), ADDRESS), [], b"/", "10.0.0.1"),
        ((HashPolicy(HashSource.HEADER, ":authority"),), [], b"/", "service"),
    ],
)
def test_what_is_hashed(policies: tuple[HashPolicy, ...], headers: Headers, target: bytes, key: str) -> None:
    assert hash_key(policies, "10.0.0.1", head(*headers, target=target)) == (key, [])


def test_a_long_key_is_as_short_as_any_other_and_still_its_own() -> None:
    first, _ = hash_key((USER,), "", head((b"x-user", b"a" * 60_000)))
    second, _ = hash_key((USER,), "", head((b"x-user", b"a" * 59_999 + b"b")))
    assert len(first) == len(second) == 32
    assert first != second


def test_a_cookie_with_a_lifetime_is_given_to_who_has_none() -> None:
    policy = HashPolicy(HashSource.COOKIE, "sid", cookie_lifetime_s=60.0, cookie_path="/a")
    key, given = hash_key((policy,), "", head())
    assert given == [(b"set-cookie", f'sid="{key}"; Max-Age=60; Path=/a; HttpOnly'.encode())]
    again, nothing = hash_key((policy,), "", head((b"cookie", f'sid="{key}"'.encode())))
    assert (again, nothing) == (key, [])
    _, session = hash_key((HashPolicy(HashSource.COOKIE, "s", cookie_lifetime_s=0.0),), "", head())
    assert session[0][1].endswith(b'"; HttpOnly')
