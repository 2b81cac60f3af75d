"""Values of any shape out of the bytes of one fuzz input; when the bytes are used up, the smallest ones follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that are not used yet."""
        return len(self._data) - self._at

    def below(self, limit: int) -> int:
        """A number from 0 to ``limit`` - 1, at most 256 of them."""
        return self.take(1).ljust(1, b"\0")[0] % limit

    def truth(self) -> bool:
        return self.below(2) == 1

    def choice(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        self._at += len(taken)
        return taken

    def text(self, longest: int = 24) -> str:
        """What is not UTF-8 becomes replacement characters."""
        return self.take(self.below(longest + 1)).decode("utf-8", "replace")

    def rest(self) -> bytes:
        return self.take(self.left)
