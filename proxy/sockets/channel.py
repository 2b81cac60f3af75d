"""The two ends that a relay joins: a plain TCP socket, or a TLS session on one.

A channel moves bytes between its socket and the worker's shared plaintext buffer. It never waits: whoever drives it
waits for the socket. All plaintext of a worker passes through one :class:`Buffers`; what a slow receiver has not
taken yet is kept by the channel, at most one read's worth.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

from proxy.tls.openssl import Buffer
from proxy.tls.session import CLOSE_NOTIFY, RECORD_SIZE, WOULD_BLOCK, TLSSession

END = 0
"""``receive``: the peer has finished its direction."""

READ_SIZE = 512 * 1024
"""Bytes per read at full speed. Below this the per-read cost shows; above it nothing is gained."""
_SMALLEST_READ = 16 * 1024
_MOST_OVERHEAD = 128
"""Bytes of records for one byte of data; a record of TLS 1.2 with one byte in it has 85 at most."""
_MOST_BARREN = 4 * RECORD_SIZE
_MOST_ANSWERS = 64 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""``SO_LINGER`` value: closing sends a reset."""
_MSG_MORE = getattr(socket, "MSG_MORE", 0)
_END_ON_CLOSE = struct.pack("ii", 0, 0)


class Buffers:
    """One worker's shared buffers, and how much its channels keep for receivers that are slow."""

    __slots__ = ("_stalled_limit", "cipher", "largest_read", "plain", "stalled")

    def __init__(self, stalled_limit: int = 0) -> None:
        """``stalled_limit`` bytes; 0 is no limit."""
        self.cipher = Buffer(READ_SIZE)
        # One read's ciphertext plus the record that was incomplete before it always fit.
        self.plain = Buffer(READ_SIZE + 2 * RECORD_SIZE)
        self.stalled = 0
        """Bytes that wait in channels whose peers do not take them."""
        self.largest_read = READ_SIZE
        """What one channel may read, and so may have to keep."""
        self._stalled_limit = stalled_limit

    def stall(self, change: int) -> None:
        """So many bytes more wait, or less."""
        self.stalled += change
        full = self._stalled_limit and self.stalled >= self._stalled_limit
        self.largest_read = _SMALLEST_READ if full else READ_SIZE


class Channel(Protocol):
    """What a relay needs of either end."""

    fd: int
    more: bool
    """There is, or may be, more to receive although the socket might not say so."""
    cut: bool
    """The peer's TLS session ended without its last word (close_notify, RFC 8446 section 6.1)."""

    def receive(self) -> int:
        """Bytes now in the plaintext buffer, ``END`` or ``WOULD_BLOCK``. :raises OSError: and TLS errors."""

    def transmit(self, length: int) -> bool:
        """Send the first ``length`` bytes of the plaintext buffer; false when some of it has to wait."""

    def write(self, data: bytes | memoryview) -> None:
        """Take all of it; what the socket does not take at once waits for :meth:`flush`.

        :raises OSError: and TLS errors."""

    @property
    def waiting(self) -> int:
        """Bytes that :meth:`flush` would have to send."""

    def flush(self) -> bool:
        """Send what waits; false when some still has to."""

    def note_waiting(self) -> None:
        """Count what waits among the bytes that the worker keeps for slow peers."""

    def finish(self, *, cut: bool = False) -> bool:
        """End our direction once everything is sent; false when that has to wait for :meth:`flush`.

        ``cut``: a TLS session ends without close_notify."""

    def wait_for(self, length: int) -> None:
        """Let the socket be reported readable only when this much has come, or the end, or an error."""

    def close(self, *, reset: bool = False) -> None:
        """Close the socket; with ``reset`` the peer sees a TCP reset instead of an end."""

    def alpn(self) -> bytes:
        """The protocol that was negotiated in the handshake; empty: none was."""

    def hint(self) -> str:
        """What may be why the peer ended without a word; empty when nothing is known."""


class _SocketChannel:
    __slots__ = ("_buffers", "_kept", "_read_size", "_socket", "cut", "fd", "more")

    def __init__(self, connected: socket.socket, buffers: Buffers) -> None:
        self._socket = connected
        self._buffers = buffers
        self._read_size = _SMALLEST_READ
        self._kept = 0
        """Bytes for which the buffers were told that they wait here."""
        self.fd = connected.fileno()
        self.more = False
        self.cut = False
        # Until it is closed on purpose: the kernel closes the sockets of a killed process, and that must not look like
        # the end of what the other side sent.
        self._on_close(RESET_ON_CLOSE)

    def close(self, *, reset: bool = False) -> None:
        if self._kept:
            self._keep(0)
        if not reset:
            self._on_close(_END_ON_CLOSE)
        try:
            self._socket.close()
        except OSError:
            pass  # a reset that came first

    @property
    def waiting(self) -> int:
        raise NotImplementedError

    def note_waiting(self) -> None:
        self._keep(self.waiting)

    def _on_close(self, linger: bytes) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        except OSError:
            pass

    def wait_for(self, length: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, length)
        except OSError:
            pass

    def _shut_down(self) -> bool:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the peer may have gone: its own direction tells
        return True

    def _keep(self, length: int) -> None:
        """So much waits to be sent, all of it of one read."""
        if length != self._kept:
            self._buffers.stall(length - self._kept)
            self._kept = length

    def _adapt(self) -> None:
        """Large reads for a stream, small ones for messages: all that was to be read has come."""
        if self._read_size < READ_SIZE:
            self._read_size = min(self._read_size * 4, READ_SIZE)


class TCPChannel(_SocketChannel):
    """A socket as it is."""

    __slots__ = ("_backlog",)

    def __init__(self, connected: socket.socket, buffers: Buffers) -> None:
        super().__init__(connected, buffers)
        self._backlog: memoryview | None = None

    def alpn(self) -> bytes:
        return b""

    def hint(self) -> str:
        return ""

    def receive(self) -> int:
        buffers, size = self._buffers, self._read_size
        if size > buffers.largest_read:
            size = buffers.largest_read
        try:
            received = self._socket.recv_into(buffers.plain.view, size)
        except (BlockingIOError, InterruptedError):
            self.more = False
            return WOULD_BLOCK
        self.more = received == size
        if self.more:
            self._adapt()
        return received

    def transmit(self, length: int) -> bool:
        view = self._buffers.plain.view
        try:
            sent = self._socket.send(view[:length])
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == length:
            return True
        self._backlog = memoryview(bytes(view[sent:length]))
        self._keep(length - sent)
        return False

    def write(self, data: bytes | memoryview) -> None:
        if self._backlog is not None:
            self._backlog = memoryview(b"".join((self._backlog, data)))
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < len(data):
            self._backlog = memoryview(bytes(data[sent:]))

    @property
    def waiting(self) -> int:
        return 0 if self._backlog is None else len(self._backlog)

    def flush(self) -> bool:
        while self._backlog is not None:
            try:
                sent = self._socket.send(self._backlog)
            except (BlockingIOError, InterruptedError):
                return False
            self._backlog = self._backlog[sent:] if sent < len(self._backlog) else None
        if self._kept:
            self._keep(0)
        return True

    def finish(self, *, cut: bool = False) -> bool:
        return self.flush() and self._shut_down()


class TLSChannel(_SocketChannel):
    """A session whose handshake is done."""

    __slots__ = ("_barren", "_ended", "_finishing", "_session")

    def __init__(self, connected: socket.socket, session: TLSSession, buffers: Buffers) -> None:
        super().__init__(connected, buffers)
        self._session = session
        self._barren = 0
        """Bytes of records since one brought data."""
        self._ended = False
        self._finishing = False
        self.more = True  # the handshake's last flight may have brought data with it

    def alpn(self) -> bytes:
        return self._session.alpn()

    def hint(self) -> str:
        return self._session.hint()

    def receive(self) -> int:
        if self._ended:
            return END
        if not self.more:
            return self._receive_from_socket()
        received = self._decrypt()
        return received if received != WOULD_BLOCK else self._receive_from_socket()

    def _receive_from_socket(self) -> int:
        buffers, size = self._buffers, self._read_size
        if size > buffers.largest_read:
            size = buffers.largest_read
        try:
            ciphertext = self._socket.recv_into(buffers.cipher.view, size)
        except (BlockingIOError, InterruptedError):
            self.more = False
            return WOULD_BLOCK
        if ciphertext == 0:
            self._ended = self.cut = True
            return END
        self._session.lend(buffers.cipher, ciphertext)
        more = ciphertext == size
        if more:
            self._adapt()
        received = self._decrypt()
        self.more = self.more or more
        if received * _MOST_OVERHEAD < ciphertext:
            self._note_barren(ciphertext)
        else:
            self._barren = 0
        return received

    def _bound_answers(self) -> None:
        """A peer that asks for answers must read them: beside what it did not take yet only so many may wait."""
        waiting = self._session.outgoing()
        if waiting is not None and len(waiting) > self._kept + self._kept // 16 + _MOST_ANSWERS:
            raise self._session.broken("the peer asks for answers and does not read them")

    def _note_barren(self, ciphertext: int) -> None:
        """Part of a large record, or records that only keep us busy: changes of keys (RFC 8446 section 4.6.3)."""
        self._barren += ciphertext
        if self._barren > _MOST_BARREN:
            raise self._session.broken("the peer sends records without data, again and again")

    def _decrypt(self) -> int:
        """Everything that is complete, into the plaintext buffer; ``more`` says whether the session holds more."""
        session = self._session
        total, state = session.read(self._buffers.plain)
        self.more = state != WOULD_BLOCK
        if self.more:
            session.keep()
            self._ended = state == CLOSE_NOTIFY
        if not self.flush():  # an answer to a key update
            self._bound_answers()
        if total:
            return total
        return END if self._ended else WOULD_BLOCK

    def transmit(self, length: int) -> bool:
        self._session.write(self._buffers.plain, length)
        if self.flush():
            return True
        self._keep(length)
        return False

    def write(self, data: bytes | memoryview) -> None:
        self._session.write_data(data)

    @property
    def waiting(self) -> int:
        waiting = self._session.outgoing()
        return 0 if waiting is None else len(waiting)

    def flush(self) -> bool:
        session = self._session
        if (waiting := session.outgoing()) is not None:
            length = len(waiting)
            try:
                # The last words leave in one packet with the end that follows them.
                sent = self._socket.send(waiting, _MSG_MORE if self._finishing else 0)
            except (BlockingIOError, InterruptedError):
                return False
            session.sent(sent, self._buffers.cipher)
            if sent < length:
                return False
        if self._kept:
            self._keep(0)
        return self._shut_down() if self._finishing else True

    def finish(self, *, cut: bool = False) -> bool:
        if not self._finishing:
            if not self.flush():
                return False
            if not cut:
                self._session.close_notify()
            self._finishing = True
        return self.flush()
