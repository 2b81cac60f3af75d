"""Accepting: who was queued is taken over when the listener stops, and newcomers cannot keep it from stopping."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from proxy.sockets.listener import Listener

_BACKLOG = 8
_MORE = 1_000


async def test_a_listener_stops_although_new_clients_keep_coming() -> None:
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
        address = listening.getsockname()
        admitted: list[str] = []

        def come() -> str:
            client = opened.enter_context(socket.create_connection(address))
            return f"127.0.0.1:{client.getsockname()[1]}"

        def admit(client: socket.socket, name: str) -> None:
            opened.enter_context(client)
            admitted.append(name)
            if len(admitted) < _MORE:
                come()

        queued = [come() for _ in range(3)]
        Listener(asyncio.get_running_loop(), listening, "127.0.0.1", admit).stop()
    assert admitted[:3] == queued
    assert len(admitted) <= len(queued) + _BACKLOG


async def test_everybody_in_a_full_queue_is_admitted() -> None:
    with contextlib.ExitStack() as opened:
        listening = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
        queued = [opened.enter_context(socket.create_connection(listening.getsockname())) for _ in range(_BACKLOG + 1)]
        admitted: list[socket.socket] = []
        Listener(asyncio.get_running_loop(), listening, "127.0.0.1", lambda one, _: admitted.append(one)).stop()
        for one in admitted:
            opened.enter_context(one)
    assert len(admitted) == len(queued)
