"""A blocking TLS client that can finish its direction and read on, which asyncio's cannot."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct


class Truncated(AssertionError):
    """The socket ended without the session's end (close_notify)."""


class RawTLSClient:
    """Use it from a thread. Every call has a deadline of 20 seconds."""

    def __init__(self, port: int, context: ssl.SSLContext, server_name: str, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", port))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self.socket.recv(65_536))
            else:
                self._flush()
                return

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def finish(self) -> None:
        """close_notify, then FIN; reading goes on."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()
        self.socket.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes:
        """Some bytes; empty at the end of the gateway's direction."""
        while True:
            try:
                return self._tls.read(65_536)
            except ssl.SSLWantReadError:
                data = self.socket.recv(65_536)
                if not data:
                    raise Truncated("the gateway ended without close_notify") from None
                self._incoming.write(data)
            except (ssl.SSLZeroReturnError, ssl.SSLSyscallError):
                return b""

    def receive_all(self) -> bytes:
        parts = []
        while part := self.receive():
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close by a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _flush(self) -> None:
        if waiting := self._outgoing.read():
            self.socket.sendall(waiting)
