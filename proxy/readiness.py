"""Waiting for a socket in a coroutine, for the short time before a relay takes over."""

from __future__ import annotations

import asyncio
import socket


async def readable(loop: asyncio.AbstractEventLoop, waiting: socket.socket) -> None:
    """Return when ``waiting`` has something to read, or has ended."""
    future: asyncio.Future[None] = loop.create_future()
    descriptor = waiting.fileno()
    loop.add_reader(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_reader(descriptor)


async def writable(loop: asyncio.AbstractEventLoop, waiting: socket.socket) -> None:
    """Return when ``waiting`` takes bytes, or has failed."""
    future: asyncio.Future[None] = loop.create_future()
    descriptor = waiting.fileno()
    loop.add_writer(descriptor, _wake, future)
    try:
        await future
    finally:
        loop.remove_writer(descriptor)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
