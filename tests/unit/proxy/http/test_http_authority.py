"""What a client may name as its host."""

from __future__ import annotations

import pytest

from proxy.http.authority import check_authority
from proxy.http.errors import BadRequest


@pytest.mark.parametrize(
    "value",
    [
        b"db.example",
        b"db.example:8080",
        b"db.example:",
        b"DB_1.example.",
        b"10.0.0.1:65535",
        b"[2001:db8::1]",
        b"[::ffff:10.0.0.1]:443",
        b"caf%C3%A9.example",
    ],
)
def test_a_host_with_or_without_a_port(value: bytes) -> None:
    check_authority(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":80",
        b"user@db.example",
        b"user:word@db.example",
        b"db.example/path",
        b"db.example?query",
        b"db.example#part",
        b"db example",
        b"db.example, other.example",
        b"db.example\r\nX: 1",
        b"db.example:80:80",
        b"db.example:65536",
        b"db.example:+80",
        b"db.example:http",
        b"[2001:db8::1",
        b"[2001:db8::zz]",
        b"[10.0.0.1]",
        b"[fe80::1%25eth0]",
        b"2001:db8::1",
        b"caf\xc3\xa9.example",
        b"db%zz.example",
        b"db\\.example",
        b"a" * 301,
    ],
)
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        check_authority(value)
    assert refused.value.status == 400
