"""Any certificate has names or a named error, and what a service is told of it is one element in one line."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509

from proxy.errors import UpstreamError
from proxy.http.caller import _element
from proxy.tls.context import _uris
from proxy.tls.unreadable import UNREADABLE
from proxy.tls.upstream_name import check_name

CODE = ("proxy.http.caller", "proxy.http.forward", "proxy.tls.upstream_name")
BY = "spiffe://td/ns/default/dc/dc1/svc/db"
EXPECTED = ("db.example", "10.0.0.9", "spiffe://partner/api")


def run(data: bytes) -> None:
    _as_a_service(data)
    try:
        uris, _ = _uris.__wrapped__(data)
    except UNREADABLE:
        return  # refused in the handshake
    element = _element.__wrapped__(BY, (data, b"beside it"))
    assert all(0x20 <= byte < 0x7F for byte in element), element
    fields = list(_fields(element.decode()))
    keys = [key for key, _ in fields]
    told = [value for key, value in fields if key == "URI"]
    assert keys[:5] == ["By", "Hash", "Cert", "Chain", "Subject"], keys
    assert set(keys[5:]) <= {"URI", "DNS"}, keys
    assert len(told) == len(uris)
    assert fields[0][1] == BY


def _as_a_service(data: bytes) -> None:
    try:
        certificate = x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion):
        return
    for expected in EXPECTED:
        try:
            check_name(certificate, expected)
        except UpstreamError:
            continue


def _fields(element: str) -> Iterator[tuple[str, str]]:
    """Read as a service would: ``;`` between fields, ``,`` between elements, both not inside of quotes."""
    at = 0
    while at < len(element):
        equals = element.index("=", at)
        key, at = element[at:equals], equals + 1
        value = ""
        if element[at : at + 1] == '"':
            at += 1
            while element[at] != '"':
                at += element[at] == "\\"
                value += element[at]
                at += 1
            at += 1
        else:
            while at < len(element) and element[at] not in ';,"':
                value += element[at]
                at += 1
        assert element[at : at + 1] in ("", ";"), f"another element begins at {at} of {element}"
        assert key.isalpha(), key
        yield key, value
        at += 1
