"""Where a head ends in the bytes that have come."""

from __future__ import annotations

import re
from typing import Final

from proxy.http.h1.fields import HEAD_END

NOTHING: Final = memoryview(b"")


class HeadTooLong(Exception):
    pass


class HeadBuffer:
    """Keeps what there is of a head until all of it is there."""

    __slots__ = ("_end", "begun", "limit")

    def __init__(self, limit: int, end: re.Pattern[bytes] = HEAD_END) -> None:
        """``end`` is the empty line, and no longer than 4 bytes."""
        self._end = end
        self.limit = limit
        """Bytes, the empty line among them."""
        self.begun = bytearray()

    def take(self, data: memoryview) -> tuple[bytes, memoryview]:
        """:returns: the head with its empty line, or nothing while it is not complete; and what follows it.
        :raises HeadTooLong: once it cannot end within the limit.
        """
        begun = self.begun
        before = len(begun)
        if before:
            begun += data[: max(0, self.limit - before)]
            found = self._end.search(begun, max(0, before - 3))
        else:
            found = self._end.search(data, 0, self.limit)
        if found is None:
            if before + len(data) >= self.limit:
                raise HeadTooLong
            if not before:
                begun += data
            return b"", NOTHING
        end = found.end()
        if not before:
            return bytes(data[:end]), data[end:]
        self.begun = bytearray()
        return bytes(begun[:end]), data[end - before :]
