"""How much is kept for receivers that are slow, and what that does to everybody's reads."""

from __future__ import annotations

import socket

from proxy.sockets.channel import READ_SIZE, Buffers, TCPChannel


def test_beyond_the_limit_everybody_is_read_in_small_pieces_until_there_is_room_again() -> None:
    buffers = Buffers(100_000)
    one, other = socket.socketpair()
    one.setblocking(False)
    channel = TCPChannel(one, buffers)
    while buffers.stalled < 100_000:
        assert not channel.transmit(READ_SIZE) or buffers.stalled == 0
    assert buffers.largest_read < READ_SIZE
    other.settimeout(5)
    while not channel.flush():
        other.recv(1_000_000)
    assert (buffers.stalled, buffers.largest_read) == (0, READ_SIZE)
    channel.close()
    other.close()


def test_what_a_closed_channel_kept_is_not_kept_any_more() -> None:
    buffers = Buffers(1)
    one, other = socket.socketpair()
    one.setblocking(False)
    channel = TCPChannel(one, buffers)
    while channel.transmit(READ_SIZE):
        pass
    assert buffers.stalled > 0
    channel.close(reset=True)
    assert buffers.stalled == 0
    other.close()
