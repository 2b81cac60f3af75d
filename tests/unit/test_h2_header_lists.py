"""Lists of headers, against the library's own reader and writer."""

from __future__ import annotations

import pytest
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder
from hpack.huffman_table import decode_huffman
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http import h2_huffman
from proxy.http.h2_header_lists import HeaderDecoder, HeaderEncoder
from proxy.http.message import Header

NAMES = st.sampled_from([b":path", b":status", b":method", b"date", b"cookie", b"a", b"b", b"x-long" * 30, b"accept"])
VALUES = st.one_of(
    st.sampled_from([b"", b"/", b"200", b"GET", b"same", b"x" * 900, b"y" * 3_000]), st.binary(max_size=40)
)
LISTS = st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=8), max_size=12)
SIZES = st.lists(st.sampled_from([0, 50, 500, 4_096]), max_size=3)


def read(decoder: Decoder, data: bytes) -> list[Header] | type[Exception]:
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(data, raw=True)]
    except OversizedHeaderListError:
        return OversizedHeaderListError
    except HPACKError:
        return HPACKError


@settings(deadline=None)
@given(lists=LISTS, sizes=SIZES)
def test_what_is_written_is_read_by_the_library(lists: list[list[Header]], sizes: list[int]) -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for number, headers in enumerate(lists):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert read(decoder, encoder.encode(headers)) == headers
        assert decoder.header_table._current_size == encoder._size <= encoder.header_table_size


@settings(deadline=None)
@given(lists=LISTS, sizes=SIZES, huffman=st.booleans())
def test_what_the_library_writes_is_read(lists: list[list[Header]], sizes: list[int], huffman: bool) -> None:
    encoder, decoder = Encoder(), HeaderDecoder()
    for number, headers in enumerate(lists):
        if number < len(sizes):
            encoder.header_table_size = sizes[number]
        assert read(decoder, encoder.encode(headers, huffman=huffman)) == headers
        assert list(decoder.header_table.dynamic_entries) == list(encoder.header_table.dynamic_entries)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_bytes_are_read_as_the_library_reads_them(blocks: list[bytes]) -> None:
    ours, theirs = HeaderDecoder(2_000), Decoder(2_000)
    for block in blocks:
        heard = read(ours, block)
        assert heard == read(theirs, block)
        if not isinstance(heard, list):
            return
        assert ours.header_table.dynamic_entries == theirs.header_table.dynamic_entries


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60))
def test_any_text_is_decoded_as_the_library_decodes_it(data: bytes) -> None:
    try:
        expected = decode_huffman(data)
    except HPACKError:
        with pytest.raises(HPACKError):
            h2_huffman.decode(data)
        return
    assert h2_huffman.decode(data) == expected


@given(st.binary(max_size=100))
def test_any_text_survives(text: bytes) -> None:
    assert h2_huffman.decode(Encoder().huffman_coder.encode(text)) == text


def test_secrets_are_never_put_into_a_table() -> None:
    encoder, decoder = HeaderEncoder(), Decoder()
    for name in (b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"):
        (header,) = decoder.decode(encoder.encode([(name, b"secret")]), raw=True)
        assert not header.indexable
    assert not encoder._numbers


def test_what_changes_does_not_push_out_what_stays() -> None:
    encoder = HeaderEncoder()
    first = encoder.encode([(b"content-type", b"application/json"), (b"date", b"0"), (b":path", b"/0")])
    for number in range(1, 500):
        again = encoder.encode(
            [(b"content-type", b"application/json"), (b"date", b"%d" % number), (b":path", b"/%d" % number)]
        )
        assert len(again) < len(first)


def test_a_list_that_is_too_long_is_not_read_to_its_end() -> None:
    encoder = Encoder()
    block = encoder.encode([(b"a", b"b" * 4_000)]) + encoder.encode([(b"a", b"b" * 4_000)]) * 100_000
    with pytest.raises(OversizedHeaderListError):
        HeaderDecoder(10_000).decode(block)
