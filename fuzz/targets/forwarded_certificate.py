"""Who is asked for stands in the header once, outside of quotation marks, as an independent reader finds."""

from __future__ import annotations

from proxy.http.forwarded_certificate import Unreadable, forwarded_uri
from proxy.http.message import Headers

CODE = ("proxy.http.forwarded_certificate",)

GATEWAY = "spiffe://11111111-2222-3333-4444-555555555555.consul/gateway/mesh/dc/dc1"
_NAME = b"x-forwarded-client-cert"


def run(data: bytes) -> None:
    """Each line of ``data`` is one of the header."""
    lines = data.split(b"\n")
    headers: Headers = [(b"host", b"db"), *((_NAME, line) for line in lines)]
    try:
        uri = forwarded_uri(headers, GATEWAY)
    except Unreadable:
        return
    (line,) = lines
    fields = independently(line)
    assert [value for key, value in fields if key.lower() == b"uri"] == [uri.encode()]
    assert [value for key, value in fields if key.lower() == b"by"] == [GATEWAY.encode()]


def independently(line: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of the one element, one byte at a time."""
    fields = [b""]
    quoted = escaped = False
    for number in line:
        byte = bytes((number,))
        assert b" " <= byte <= b"~", "no control character, and nothing that is not ASCII"
        if escaped:
            escaped = False
        elif quoted and byte == b"\\":
            escaped = True
        elif byte == b'"':
            quoted = not quoted
        elif not quoted:
            assert byte not in (b",", b" ", b"\\"), "one element, without spaces"
            if byte == b";":
                fields.append(b"")
                continue
        fields[-1] += byte
    assert not quoted
    pairs = [field.partition(b"=") for field in fields]
    assert all(equals for _, equals, _ in pairs)
    return [(key, value) for key, _, value in pairs]
