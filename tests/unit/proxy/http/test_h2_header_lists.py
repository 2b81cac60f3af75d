"""Lists of headers as they are written, against the library's reader."""

from __future__ import annotations

import logging

import pytest
from hpack.hpack import Decoder
from hypothesis import given, settings
from hypothesis import strategies as st

import proxy.http.h2.engine  # noqa: F401 - it keeps the reader quiet
from proxy.http.h2.header_lists import HeaderEncoder
from proxy.http.message import Header

NAMES = st.sampled_from([b":path", b":status", b":method", b"date", b"cookie", b"a", b"b", b"x-long" * 30, b"accept"])
VALUES = st.one_of(
    st.sampled_from([b"", b"/", b"200", b"GET", b"same", b"x" * 900, b"y" * 3_000]), st.binary(max_size=40)
)
LISTS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=12)
SIZES = st.lists(st.sampled_from([0, 50, 500, 4_096]), max_size=3)


def read(decoder: Decoder, data: bytes) -> list[Header]:
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(data, raw=True)]


@settings(deadline=None)
@given(lists=LISTS, sizes=SIZES)
def test_what_is_written_is_read_by_the_library(lists: list[list[Header]], sizes: list[int]) -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for number, headers in enumerate(lists):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert read(decoder, encoder.encode(headers)) == headers
        assert decoder.header_table._current_size == encoder._size <= encoder.header_table_size


def test_secrets_are_never_put_into_a_table() -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for name in (b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"):
        (header,) = decoder.decode(encoder.encode([(name, b"secret")]), raw=True)
        assert not header.indexable
    assert not encoder._numbers


def test_what_is_read_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        Decoder().decode(HeaderEncoder().encode([(b"authorization", b"secret")]))
    assert not caplog.records


def test_what_changes_does_not_push_out_what_stays() -> None:
    encoder = HeaderEncoder()
    first = encoder.encode([(b"content-type", b"application/json"), (b"date", b"0"), (b":path", b"/0")])
    for number in range(1, 500):
        again = encoder.encode(
            [(b"content-type", b"application/json"), (b"date", b"%d" % number), (b":path", b"/%d" % number)]
        )
        assert len(again) < len(first)
