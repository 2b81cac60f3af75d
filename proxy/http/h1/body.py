"""Bodies as HTTP/1.1 frames them (RFC 9112 sections 6 and 7): counted, in chunks, or until the end of the connection.

No body goes through a parser: a length is counted and a chunk's size is read in place, so that data is passed on where
it lies. llhttp is not asked for chunks, because httptools says neither where a message ended nor what stood behind a
chunk's size; it reads the trailers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from proxy.http.h1.fields import HEAD_END, trailers_in
from proxy.http.message import Data, Headers

Deliver = Callable[[Data], object]

_FIRST_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_NEXT_SIZE = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")
_BEGUN = re.compile(rb"[0-9A-Fa-f]{1,15}\r?|")
_EXTENSION = rb"[\t ]{0,32}(?:;[\t -~\x80-\xff]{0,255})?"
_FIRST_SIZE_EXTENDED = re.compile(rb"([0-9A-Fa-f]{1,15})" + _EXTENSION + rb"\r\n")
_NEXT_SIZE_EXTENDED = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})" + _EXTENSION + rb"\r\n")
_BEGUN_EXTENDED = re.compile(rb"[0-9A-Fa-f]{1,15}" + _EXTENSION + rb"\r?|")
_LONGEST_SIZE = 320
"""Bytes of a line with a chunk's size, and more than any that is only begun."""
_LARGE = 4 * 1024
"""Bytes. Smaller chunks that came together are passed on together."""
MAX_TRAILER_BYTES = 16 * 1024


class BadBody(Exception):
    """Names what is wrong."""


class BodyReader(Protocol):
    done: bool
    trailers: Headers

    def read(self, data: memoryview, deliver: Deliver) -> int:
        """Deliver what there is of the body. :returns: how many bytes belonged to it, framing included.

        :raises BadBody: once everything before the fault was delivered.
        """


class CountedBody:
    """With a Content-Length of at least one byte."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False
        self.trailers: Headers = []

    def read(self, data: memoryview, deliver: Deliver) -> int:
        length = len(data)
        if length >= self._left:
            length = self._left
            self.done = True
            data = data[:length]
        self._left -= length
        deliver(data)
        return length


class BodyUntilEnd:
    """Of a response whose end is that of the connection."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Headers = []

    def read(self, data: memoryview, deliver: Deliver) -> int:
        deliver(data)
        return len(data)


class ChunkedBody:
    """``Transfer-Encoding: chunked`` (RFC 9112 section 7.1)."""

    __slots__ = ("_begun", "_in_trailers", "_kept", "_left", "_next", "_size", "done", "trailers")

    def __init__(self, *, extensions: bool) -> None:
        """``extensions`` are ignored, or else refused."""
        self._size = _FIRST_SIZE_EXTENDED if extensions else _FIRST_SIZE
        self._next = _NEXT_SIZE_EXTENDED if extensions else _NEXT_SIZE
        self._begun = _BEGUN_EXTENDED if extensions else _BEGUN
        self._left = 0
        """Bytes of the chunk that are still to come."""
        self._kept = b""
        """A line, or a trailer section, that is not complete."""
        self._in_trailers = False
        self.done = False
        self.trailers: Headers = []

    def read(self, data: memoryview, deliver: Deliver) -> int:
        small: list[memoryview] = []
        try:
            return self._read(data, deliver, small)
        finally:
            if small:
                _pass_on(small, deliver)

    def _read(self, data: memoryview, deliver: Deliver, small: list[memoryview]) -> int:
        at, end = 0, len(data)
        while at < end and not self.done:
            left = self._left
            if left:
                part = data[at : at + left]
                length = len(part)
                at += length
                self._left = left - length
                if length < _LARGE:
                    small.append(part)
                else:
                    if small:
                        _pass_on(small, deliver)
                    deliver(part)
            elif self._in_trailers:
                at = self._read_trailers(data, at)
            else:
                at = self._read_size(data, at)
        return at

    def _read_size(self, data: memoryview, at: int) -> int:
        kept = self._kept
        if kept:
            found = self._size.match(kept + bytes(data[at : at + _LONGEST_SIZE]))
            start = at - len(kept)
        else:
            found = self._size.match(data, at)
            start = 0
        if found is None:
            self._keep_size(kept + bytes(data[at : at + _LONGEST_SIZE]))
            return len(data)
        at = start + found.end()
        self._kept = b""
        self._left = int(found[1], 16)
        self._size = self._next
        if not self._left:
            self._in_trailers = True
        return at

    def _keep_size(self, line: bytes) -> None:
        """It is not complete, or never will be right."""
        begun = line
        if self._size is self._next:
            begun = line[2:]
            if not b"\r\n".startswith(line[:2]):
                raise BadBody("a chunk is longer than its size")
        if not self._begun.fullmatch(begun):
            raise BadBody("malformed size of a chunk")
        self._kept = line

    def _read_trailers(self, data: memoryview, at: int) -> int:
        block = self._kept + bytes(data[at : at + MAX_TRAILER_BYTES + 1 - len(self._kept)])
        if block.startswith(b"\r\n"):
            length = 2
        elif (found := HEAD_END.search(block)) is not None:
            length = found.end()
            try:
                self.trailers = trailers_in(block[:length])
            except ValueError as error:
                raise BadBody(str(error)) from None
        elif len(block) > MAX_TRAILER_BYTES:
            raise BadBody(f"trailers of more than {MAX_TRAILER_BYTES} bytes")
        else:
            self._kept = block
            return len(data)
        at += length - len(self._kept)
        self._kept = b""
        self.done = True
        return at


def _pass_on(small: list[memoryview], deliver: Deliver) -> None:
    data: Data = small[0] if len(small) == 1 else b"".join(small)
    small.clear()
    deliver(data)
