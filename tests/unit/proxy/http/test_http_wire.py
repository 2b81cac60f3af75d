"""A wire over a channel that does what the test says, and over real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from proxy.http.wire import Wire
from proxy.sockets.channel import END, Channel
from tests.support.http1 import Nobody, Rig, rig


@pytest.fixture
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


class Scripted:
    """Takes so many bytes each time; ``None`` is a reset. As TCP sends at once, as TLS keeps until it is flushed."""

    more = False
    cut = False

    def __init__(self, fd: int, takes: list[int | None], *, tls: bool) -> None:
        self.fd = fd
        self.taken = b""
        self.waiting = 0
        self._left = b""
        self._takes = takes
        self._tls = tls

    def write(self, data: bytes | memoryview) -> None:
        self._left += bytes(data)
        if not self._tls:
            self._send()
        self.waiting = len(self._left)

    def flush(self) -> bool:
        if self._left:
            self._send()
        self.waiting = len(self._left)
        return not self._left

    def _send(self) -> None:
        take = self._takes.pop(0) if self._takes else None
        if take is None:
            self._left = b""
            raise ConnectionResetError("reset")
        self.taken += self._left[:take]
        self._left = self._left[take:]

    def receive(self) -> int:
        return -1

    def transmit(self, length: int) -> bool:
        raise AssertionError("not of a wire")

    def note_waiting(self) -> None:
        pass

    def finish(self, *, cut: bool = False) -> bool:
        return self.flush()

    def wait_for(self, length: int) -> None:
        pass

    def close(self, *, reset: bool = False) -> None:
        pass

    def alpn(self) -> bytes:
        return b""

    def hint(self) -> str:
        return ""


LARGE = 20_000


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(
    ("takes", "sizes", "untouched"),
    [
        ([None], [100], True),
        ([100], [100], False),
        ([50, None], [100], None),
        ([0, None], [100], None),
        ([100, 50, None], [100, 100], False),
        ([None], [10_000, 10_000], None),
        ([LARGE, None], [LARGE, 100], None),
    ],
)
def test_whether_anything_has_left(
    on: Rig, takes: list[int | None], sizes: list[int], untouched: bool | None, tls: bool
) -> None:
    """What is not certain (``None``) is never called untouched when something was taken."""
    one, other = socket.socketpair()
    channel: Channel = Scripted(one.fileno(), list(takes), tls=tls)
    wire = Wire(on.poller, on.buffers, on.turns, channel, Nobody())

    def write() -> None:
        wire.mark()
        with on.turns.one():
            for size in sizes:
                wire.write(b"x" * size)
        if untouched is not None:
            assert wire.untouched is untouched
        assert isinstance(channel, Scripted)
        assert not (wire.untouched and channel.taken)
        wire.close(reset=True)

    on.call(write)
    one.close()
    other.close()


def test_a_large_piece_and_a_small_one_keep_their_order(on: Rig) -> None:
    wire, peer = on.wire()

    def write() -> None:
        with on.turns.one():
            wire.write(b"a")
            wire.write(b"b" * LARGE)
            wire.write(b"c")

    on.call(write)
    on.until(lambda: peer.received == b"a" + b"b" * LARGE + b"c")


def test_what_is_written_in_one_turn_leaves_in_one_piece(on: Rig) -> None:
    one, other = socket.socketpair()
    channel = Scripted(one.fileno(), [6], tls=False)
    wire = Wire(on.poller, on.buffers, on.turns, channel, Nobody())

    def write() -> None:
        with on.turns.one():
            for piece in (b"ab", b"cd", b"ef"):
                wire.write(piece)
            assert channel.taken == b""
            assert wire.waiting == 6

    on.call(write)
    assert (channel.taken, wire.waiting) == (b"abcdef", 0)
    on.call(lambda: wire.close(reset=True))
    one.close()
    other.close()


def test_the_end_comes_after_everything_although_the_peer_is_slow(on: Rig) -> None:
    wire, peer = on.wire()
    size = 20_000_000
    peer.open = False  # it reads nothing

    def write() -> None:
        assert not wire.write(b"x" * size)
        wire.finish()
        assert wire.waiting

    on.call(write)
    on.turn()
    peer.open = True
    on.until(lambda: peer.ended)
    assert (peer.ended, len(peer.received)) == ("end", size)
    assert not wire.closed, "the other direction goes on"


def test_a_reset_after_the_end_of_the_peer_is_told_although_nothing_is_read_any_more(on: Rig) -> None:
    class Ended(Scripted):
        def receive(self) -> int:
            return END

    heard: list[str] = []

    class Owner(Nobody):
        def on_end(self, *, cut: bool) -> None:
            heard.append("end")

        def on_lost(self, error: Exception) -> None:
            heard.append("lost")

    one, other = socket.socketpair()
    wire = Wire(on.poller, on.buffers, on.turns, Ended(one.fileno(), [0, 0, None], tls=False), Owner())
    on.call(wire.listen)
    other.close()
    on.until(lambda: heard)

    def finish() -> None:
        with on.turns.one():
            wire.write(b"nobody takes it")
        wire.finish()

    on.call(finish)
    on.until(lambda: heard == ["end", "lost"])
    assert not wire.waiting
    on.call(lambda: wire.close(reset=True))
    one.close()


def test_what_comes_later_is_not_done_to_a_closed_wire(on: Rig) -> None:
    wire, _ = on.wire()
    done: list[str] = []

    def close() -> None:
        wire.soon(lambda: done.append("soon"))
        wire.after(0.0, lambda: done.append("after"))
        wire.close(reset=True)

    on.call(close)
    on.turn()
    assert done == []


def test_a_mistake_in_what_comes_later_is_told_to_the_owner(on: Rig) -> None:
    wire, _ = on.wire()
    told: list[Exception] = []

    class Owner(Nobody):
        def on_lost(self, error: Exception) -> None:
            told.append(error)

    wire.owner = Owner()
    on.call(lambda: wire.soon(lambda: 1 / 0))  # type: ignore[arg-type]
    on.until(lambda: told)
    assert isinstance(told[0], ZeroDivisionError)
