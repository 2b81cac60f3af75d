"""Bodies: what is delivered of them, where they end, and what is no body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.h1.body import MAX_TRAILER_BYTES, BadBody, BodyReader, BodyUntilEnd, ChunkedBody, CountedBody
from proxy.http.message import Data


def read(reader: BodyReader, *pieces: bytes) -> tuple[bytes, bytes]:
    """What was delivered, and what was left over."""
    body = bytearray()

    def deliver(data: Data) -> None:
        assert len(data) > 0
        body.extend(data)

    left = b""
    for piece in pieces:
        taken = reader.read(memoryview(piece), deliver) if not reader.done else 0
        left += piece[taken:]
    return bytes(body), left


def chunked(data: bytes, *, extensions: bool = False) -> tuple[bytes, bytes]:
    reader = ChunkedBody(extensions=extensions)
    whole = read(reader, data)
    assert reader.done
    return whole


def test_a_counted_body_ends_by_itself() -> None:
    reader = CountedBody(5)
    assert read(reader, b"ab", b"cdeGET ") == (b"abcde", b"GET ")
    assert reader.done


def test_a_body_until_the_end_never_ends_by_itself() -> None:
    reader = BodyUntilEnd()
    assert read(reader, b"ab", b"c") == (b"abc", b"")
    assert not reader.done


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n00000\r\n\r\n", b"0123456789" * 2),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
    ],
)
def test_chunks(data: bytes, body: bytes) -> None:
    assert chunked(data + b"next") == (body, b"next")


def test_large_chunks_are_delivered_where_they_lie_and_small_ones_together() -> None:
    large = b"x" * 10_000
    small = b"".join(b"1\r\n%c\r\n" % byte for byte in b"abcdef")
    data = memoryview(small + b"%x\r\n%b\r\n" % (len(large), large) + small + b"0\r\n\r\n")
    delivered: list[Data] = []
    reader = ChunkedBody(extensions=False)
    assert reader.read(data, delivered.append) == len(data)
    assert [bytes(one) for one in delivered] == [b"abcdef", large, b"abcdef"]
    assert isinstance(delivered[1], memoryview)
    assert delivered[1].obj is data.obj


def test_trailers() -> None:
    reader = ChunkedBody(extensions=False)
    assert read(reader, b"1\r\na\r\n0\r\nX-Sum: 1 \r\nx-sum: 2\r\n\r\nnext") == (b"a", b"next")
    assert reader.trailers == [(b"x-sum", b"1"), (b"x-sum", b"2")]


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"\n0\r\n\r\n",
        b" 0\r\n\r\n",
        b"0 \r\n\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"+1\r\na\r\n0\r\n\r\n",
        b"-1\r\na\r\n",
        b"1_0\r\n",
        b"g\r\n",
        b"1\na\r\n",
        b"1\r\r\n",
        b"1;x=y\r\na\r\n0\r\n\r\n",
        b"1 ;x\r\n",
        b"1" * 16 + b"\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"2\r\na\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1\r\na\n0\r\n\r\n",
        b"1\r\na\r0\r\n\r\n",
        b"0\r\nX : 1\r\n\r\n",
        b"0\r\n X: 1\r\n\r\n",
        b"0\r\nX\r\n\r\n",
        b"0\r\nX: 1\nY: 2\r\n\r\n",
        b"0\r\nX: \x00\r\n\r\n",
        b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n",
        b"0\r\n" + b"X: " + b"1" * MAX_TRAILER_BYTES,
    ],
)
def test_what_is_no_chunk(data: bytes) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        reader = ChunkedBody(extensions=False)
        with pytest.raises(BadBody) as bad:
            read(reader, *pieces)
        assert not reader.done
        assert str(bad.value).isprintable()


@pytest.mark.parametrize("begun", [b"b", b"\n", b"\rb", b"\r\n;", b"\r\n1\n", b"\r\n\r"])
def test_what_will_never_be_a_chunk_is_not_waited_for(begun: bytes) -> None:
    with pytest.raises(BadBody):
        read(ChunkedBody(extensions=False), b"1\r\na", begun)


def test_what_came_before_the_fault_is_delivered() -> None:
    reader, body = ChunkedBody(extensions=False), bytearray()
    with pytest.raises(BadBody):
        reader.read(memoryview(b"1\r\na\r\n1\r\nb\r\n?"), body.extend)
    assert body == b"ab"


@pytest.mark.parametrize(
    "extension", [b";a", b";a=b", b' ; a="x;y"', b"  ", b"\t", b";" + b"a" * 255, b";\xe9", b"; a=b; c"]
)
def test_extensions_of_a_response_are_skipped(extension: bytes) -> None:
    data = b"3%b\r\nabc\r\n1%b\r\nd\r\n0%b\r\n\r\n" % (extension, extension, extension)
    assert chunked(data, extensions=True) == (b"abcd", b"")
    reader = ChunkedBody(extensions=True)
    assert read(reader, *(data[at : at + 1] for at in range(len(data)))) == (b"abcd", b"")
    assert reader.done


@pytest.mark.parametrize("extension", [b";a\n", b";a\r", b";\x00", b"z", b";" + b"a" * 400, b" " * 400, b"\n"])
def test_extensions_cannot_hide_a_line(extension: bytes) -> None:
    data = b"3%b\r\nabc\r\n0\r\n\r\n" % extension
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        with pytest.raises(BadBody):
            read(ChunkedBody(extensions=True), *pieces)


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


@given(CHUNKS, st.booleans(), st.lists(st.integers(1, 30), max_size=30))
def test_it_is_the_same_however_it_is_cut(chunks: list[bytes], trailers: bool, lengths: list[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    data += b"0\r\nx: y\r\n\r\n" if trailers else b"0\r\n\r\n"
    pieces, rest = [], data + b"GET"
    for length in lengths:
        pieces.append(rest[:length])
        rest = rest[length:]
    reader = ChunkedBody(extensions=False)
    assert read(reader, *filter(None, [*pieces, rest])) == (b"".join(chunks), b"GET")
    assert reader.done
    assert reader.trailers == ([(b"x", b"y")] if trailers else [])
