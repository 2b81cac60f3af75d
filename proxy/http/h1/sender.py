"""A body as HTTP/1.1 sends it, in either direction: counted, in chunks, or as the bytes of another protocol."""

from __future__ import annotations

from proxy.http.message import Data
from proxy.http.wire import Wire

CHUNKED = -1
RAW = -2
"""After 101."""
NO_BODY = -3


class H1Sender:
    """What a request and a response have in common while their bodies are sent."""

    __slots__ = ("_left", "_wire", "open")

    def __init__(self, wire: Wire, left: int) -> None:
        self._wire = wire
        self._left = left
        """Bytes that are to come, or how the end is told."""
        self.open = True
        """Until the response is complete, or it is told that it never will be; in a tunnel, until both have ended."""

    def send(self, data: Data) -> bool:
        if not self.open:
            return True
        left, length = self._left, len(data)
        if left >= 0:
            if length > left:
                self._surplus()
                return True
            self._left = left - length
            return self._wire.write(data)
        if left == CHUNKED and length:
            self._wire.write(b"%x\r\n" % length)
            self._wire.write(data)
            return self._wire.write(b"\r\n")
        if left == RAW:
            return self._wire.write(data)
        return True

    def _surplus(self) -> None:
        """More than was announced: what was sent of it must not look complete."""
        raise NotImplementedError
