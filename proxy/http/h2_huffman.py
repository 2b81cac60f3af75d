"""Huffman codes of header text (RFC 7541 section 5.2), a byte at a time.

The library goes through each text by half bytes, and needs a microsecond for each byte of a long header: a peer could
keep a worker busy for a tenth of a second with one request. Here the way of a byte through the tree is worked out once
for each place in the tree where one can begin, and remembered: 65,536 of them at most, far fewer in practice.
"""

from __future__ import annotations

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

_END = 256
"""The symbol that marks the end; only its first bits occur, as padding."""
_MOST_PADDING = 7
_ROOT = 0

Step = tuple[int, bytes]
"""Where in the tree the next byte begins, and the text that this one has completed."""


class _Tree:
    def __init__(self) -> None:
        self._branches: list[list[int]] = [[0, 0]]
        """Of each inner node: a node, or a symbol as its bitwise complement. 0, the root, is nobody's child."""
        for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
            node = _ROOT
            for place in range(length - 1, 0, -1):
                bit = code >> place & 1
                if not self._branches[node][bit]:
                    self._branches.append([0, 0])
                    self._branches[node][bit] = len(self._branches) - 1
                node = self._branches[node][bit]
            self._branches[node][code & 1] = ~symbol
        self._steps: dict[int, Step] = {}
        self._ends = {_ROOT}
        """Nodes where a text may end: what came since the last symbol are ones, and fewer than a byte of them."""
        node = _ROOT
        for _ in range(_MOST_PADDING):
            node = self._branches[node][1]
            self._ends.add(node)

    def decode(self, data: bytes) -> bytes:
        """:raises HPACKDecodingError: when it is no text in this code."""
        steps, node = self._steps, _ROOT
        texts: list[bytes] = []
        for byte in data:
            step = steps.get(node << 8 | byte)
            node, text = step or self._step(node, byte)
            texts.append(text)
        if node not in self._ends:
            raise HPACKDecodingError("a Huffman code that is not complete, or padding that is none")
        return b"".join(texts)

    def _step(self, start: int, byte: int) -> Step:
        node, text = start, bytearray()
        for place in range(7, -1, -1):
            node = self._branches[node][byte >> place & 1]
            if node < 0:
                if ~node == _END:
                    raise HPACKDecodingError("the symbol that marks the end, within a text")
                text.append(~node)
                node = _ROOT
        step = self._steps[start << 8 | byte] = node, bytes(text)
        return step


decode = _Tree().decode
