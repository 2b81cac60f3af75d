"""Lists of headers written as HPACK (RFC 7541) by a policy of our own; they are read by the library.

What changes from message to message is not put into the table of headers, where it would only push out what is worth
keeping; names that are secrets are never put into a table, on no hop (section 7.1.3); and text is not compressed, which
would cost more than the bytes that it saves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpack.hpack import Encoder
from hpack.table import HeaderTable

from proxy.http.message import Header

_STATIC = HeaderTable.STATIC_TABLE
_FIRST_OWN = len(_STATIC) + 1
"""The number of the newest entry of the table (section 2.3.3)."""
_OVERHEAD = 32
"""Bytes that an entry counts beside its text (section 4.1)."""
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
