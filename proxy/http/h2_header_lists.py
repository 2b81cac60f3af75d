"""Lists of headers as HPACK (RFC 7541), faster than the library reads and writes them.

Reading is the library's algorithm without its detours. Writing differs: what changes from message to message is not put
into the table of headers, where it would only push out what is worth keeping; names that are secrets are never put into
a table, on no hop (section 7.1.3); and text is not compressed, which would cost more than the bytes that it saves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from hpack.exceptions import HPACKDecodingError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder
from hpack.table import HeaderTable

from proxy.http import h2_huffman
from proxy.http.message import Header

_STATIC = HeaderTable.STATIC_TABLE
_FIRST_OWN = len(_STATIC) + 1
"""The number of the newest entry of the table (section 2.3.3)."""
_OVERHEAD = 32
"""Bytes that an entry counts beside its text (section 4.1)."""
_LONGEST_NUMBER = 5
"""Bytes that continue a number: enough for 32 bits."""


def _number(data: bytes, place: int, number: int) -> tuple[int, int]:
    """One that did not fit into its prefix, which said ``number``, and where the next thing begins (section 5.1)."""
    for shift in range(0, 7 * _LONGEST_NUMBER, 7):
        byte = data[place]
        place += 1
        number += (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise HPACKDecodingError("a number of more than 32 bits")


class HeaderDecoder(Decoder):
    def decode(self, data: bytes, raw: bool = True) -> list[Header]:  # type: ignore[override]
        """Headers as pairs of bytes. :raises HPACKDecodingError, OversizedHeaderListError:"""
        headers: list[Header] = []
        place, end, size, most = 0, len(data), 0, self.max_header_list_size
        own = self.header_table.dynamic_entries
        try:
            while place < end:
                first = data[place]
                place += 1
                if first & 0x80:
                    index = first & 0x7F
                    if index == 0x7F:
                        index, place = _number(data, place, index)
                    header = _STATIC[index - 1] if 0 < index < _FIRST_OWN else _entry(own, index)
                elif first & 0xE0 == 0x20:
                    place = self._resize(data, place, first, headers)
                    continue
                else:
                    indexed = first & 0x40
                    prefix = 0x3F if indexed else 0x0F
                    index = first & prefix
                    if index == prefix:
                        index, place = _number(data, place, index)
                    if index:
                        name = _STATIC[index - 1][0] if index < _FIRST_OWN else _entry(own, index)[0]
                    else:
                        name, place = self._text(data, place)
                    value, place = self._text(data, place)
                    header = (name, value)
                    if indexed:
                        self.header_table.add(name, value)
                headers.append(header)
                size += len(header[0]) + len(header[1]) + _OVERHEAD
                if size > most:
                    raise OversizedHeaderListError(f"a list of headers larger than {most} bytes")
        except IndexError:
            raise HPACKDecodingError("a list of headers that is cut off, or an entry that is not there") from None
        self._assert_valid_table_size()
        return headers

    def _resize(self, data: bytes, place: int, first: int, before: list[Header]) -> int:
        if before:
            raise HPACKDecodingError("a change of the table's size within a list of headers")
        size = first & 0x1F
        if size == 0x1F:
            size, place = _number(data, place, size)
        if size > self.max_allowed_table_size:
            raise HPACKDecodingError("a table of headers that is larger than was announced")
        self.header_table_size = size
        return place

    @staticmethod
    def _text(data: bytes, place: int) -> tuple[bytes, int]:
        first = data[place]
        place += 1
        length = first & 0x7F
        if length == 0x7F:
            length, place = _number(data, place, length)
        end = place + length
        if end > len(data):
            raise HPACKDecodingError("a list of headers that is cut off")
        text = data[place:end]
        return (h2_huffman.decode(text) if first & 0x80 else text), end


def _entry(own: deque[tuple[bytes, bytes]], index: int) -> Header:
    """:raises IndexError: when it is not there."""
    if index < _FIRST_OWN:  # 0
        raise IndexError(index)
    return own[index - _FIRST_OWN]


# --- writing ----------------------------------------------------------------------------------------------------------

_SECRET = frozenset((b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"))
_CHANGING = frozenset(
    (
        b":path", b"age", b"content-length", b"content-range", b"date", b"etag", b"expires", b"grpc-timeout",
        b"if-match", b"if-modified-since", b"if-none-match", b"last-modified", b"location", b"range", b"traceparent",
        b"tracestate", b"x-amzn-trace-id", b"x-b3-spanid", b"x-b3-traceid", b"x-request-id",
    )
)  # fmt: skip
_LARGEST = 1_024
"""Bytes of an entry that is put into the table: it has 4,096 in all."""
_PLAIN, _NEVER, _KEPT = (0x00, 0x0F), (0x10, 0x0F), (0x40, 0x3F)
"""How a header is written that is in no table (section 6.2): the bits that say so, and the prefix that is left."""


def _written(number: int, bits: int, prefix: int) -> bytes:
    """Section 5.1."""
    if number < prefix:
        return bytes((bits | number,))
    number -= prefix
    text = bytearray((bits | prefix,))
    while number >= 0x80:
        text.append(number & 0x7F | 0x80)
        number >>= 7
    text.append(number)
    return bytes(text)


_STATIC_HEADERS = {header: _written(number, 0x80, 0x7F) for number, header in reversed([*enumerate(_STATIC, 1)])}
_STATIC_NAMES = {header[0]: number for number, header in reversed([*enumerate(_STATIC, 1)])}
_INDEXED = [_written(number, 0x80, 0x7F) for number in range(256)]


class HeaderEncoder(Encoder):
    """Keeps its own table: finding an entry in the library's means looking through all of it."""

    def __init__(self) -> None:
        super().__init__()
        self._most = self.header_table.maxsize
        self._size = 0
        self._numbers: dict[Header, int] = {}
        """Of each entry, oldest first: how many were put in before it."""
        self._added = 0

    @property
    def header_table_size(self) -> int:
        return self._most

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        if value != self._most:
            self._most = value
            self.table_size_changes.append(value)
            self._shrink(value)

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """Of pairs of bytes. ``huffman`` is ignored."""
        texts: list[bytes] = []
        if self.table_size_changes:
            texts += [_written(size, 0x20, 0x1F) for size in self.table_size_changes]
            self.table_size_changes = []
        numbers = self._numbers
        for header in headers:
            number = numbers.get(header)
            if number is not None:
                texts.append(_INDEXED[self._added - number + _FIRST_OWN - 1])
            elif (text := _STATIC_HEADERS.get(header)) is not None:
                texts.append(text)
            else:
                texts.append(self._literal(header))
        return b"".join(texts)

    def _literal(self, header: Header) -> bytes:
        name, value = header
        if name in _SECRET:
            how = _NEVER
        elif name in _CHANGING or not self._keep(header):
            how = _PLAIN
        else:
            how = _KEPT
        return b"".join((self._name(name, *how), _written(len(value), 0x00, 0x7F), value))

    def _name(self, name: bytes, bits: int, prefix: int) -> bytes:
        number = _STATIC_NAMES.get(name)
        if number is not None:
            return _written(number, bits, prefix)
        return b"".join((bytes((bits,)), _written(len(name), 0x00, 0x7F), name))

    def _keep(self, header: Header) -> bool:
        """Put it into the table, as the peer will; not if it is too large."""
        size = len(header[0]) + len(header[1]) + _OVERHEAD
        if size > _LARGEST or size > self._most:
            return False
        self._shrink(self._most - size)
        self._numbers[header] = self._added
        self._added += 1
        self._size += size
        return True

    def _shrink(self, most: int) -> None:
        while self._size > most:
            oldest = next(iter(self._numbers))
            del self._numbers[oldest]
            self._size -= len(oldest[0]) + len(oldest[1]) + _OVERHEAD
