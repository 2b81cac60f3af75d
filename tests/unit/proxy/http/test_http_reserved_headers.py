"""What only the gateway may tell an external service: a client cannot say it in its place, however it spells it."""

from __future__ import annotations

import pytest

from proxy.http.forward import request_for, trailers_of_request
from proxy.http.message import Headers, RequestHead, Version
from proxy.http.policy.tokens import Accepted

RESERVED = frozenset({b"x-claims"})


def forwarded(
    headers: Headers,
    *,
    tokens: Accepted | None = None,
    reserved: frozenset[bytes] = RESERVED,
    element: bytes = b"By=us",
) -> dict[bytes, list[bytes]]:
    head = RequestHead(b"GET", b"/", b"api", Version.HTTP_1_1, headers)
    made = request_for(
        head,
        authority=b"api",
        client_certificate=element,
        request_id=b"id",
        scheme=b"http",
        tokens=tokens,
        reserved=reserved,
    )
    return {name: made.values(name) for name, _ in made.headers}


@pytest.mark.parametrize("name", [b"x-claims", b"x_claims"])
def test_a_client_does_not_say_what_its_token_says(name: bytes) -> None:
    """Also where no token was asked for: the external service cannot tell."""
    assert name not in forwarded([(name, b"forged"), (b"x-other", b"kept")])
    assert b"x-other" in forwarded([(name, b"forged"), (b"x-other", b"kept")])
    verified = Accepted(0.0, frozenset({b"authorization"}), [(b"x-claims", b"true")])
    made = forwarded([(name, b"forged"), (b"authorization", b"Bearer x"), (b"authorization", b"y")], tokens=verified)
    assert made[b"x-claims"] == [b"true"]
    assert b"x_claims" not in made
    assert b"authorization" not in made


def test_a_token_that_is_taken_off_is_taken_off_in_every_spelling() -> None:
    verified = Accepted(0.0, frozenset({b"x-token"}), [])
    assert not {b"x-token", b"x_token"} & forwarded([(b"x-token", b"1"), (b"x_token", b"2")], tokens=verified).keys()


@pytest.mark.parametrize("element", [b"By=us", b""])
def test_a_client_certificate_header_with_underscores_is_not_passed_on(element: bytes) -> None:
    made = forwarded([(b"x_forwarded_client-cert", b"By=forged")], element=element)
    assert not any(b"forged" in value for values in made.values() for value in values)


def test_what_is_not_reserved_passes() -> None:
    headers = [(b"x-claims", b"1"), (b"a_b", b"2"), (b"authorization", b"3")]
    made = forwarded(headers, reserved=frozenset())
    assert [made[name] for name, _ in headers] == [[b"1"], [b"2"], [b"3"]]


def test_neither_does_it_in_trailers() -> None:
    names = (b"x-claims", b"x_claims", b"x-forwarded-client-cert", b"x_forwarded_client_cert", b"x-checksum", b"a_b")
    kept = trailers_of_request([(name, b"1") for name in names], RESERVED)
    assert kept == [(b"x-checksum", b"1"), (b"a_b", b"1")]
    assert trailers_of_request([(b"a-b", b"1"), (b"a_b", b"1"), (b"ab", b"1")], frozenset({b"a_b"})) == [(b"ab", b"1")]
