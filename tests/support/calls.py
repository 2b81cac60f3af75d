"""A gRPC service outside the mesh, and how it is called: grpcio, with bytes for messages instead of generated code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from plugin.dev.processes import Launcher, free_ports

SERVICE = "test.Calls"
TRAILER = "x-answered"


class Calls(Launcher):
    """One method of each kind; ``Wait`` never answers."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.waiting = 0
        """Calls of ``Wait`` at this moment: the server knows of the end of each."""
        self.deadlines_s: list[float] = []
        """What clients said how long they wait, of each call of ``Echo`` that said so."""
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        self._server = grpc.aio.server()
        methods = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Repeat": grpc.unary_stream_rpc_method_handler(self._repeat),
            "Collect": grpc.stream_unary_rpc_method_handler(self._collect),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Fail": grpc.unary_unary_rpc_method_handler(self._fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self._wait),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def _echo(self, request: bytes, context: Any) -> bytes:
        if (left_s := context.time_remaining()) is not None and left_s < 1_000_000:
            self.deadlines_s.append(left_s)
        context.set_trailing_metadata(((TRAILER, "yes"),))
        return request

    async def _repeat(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """``count:text``"""
        count, _, text = request.partition(b":")
        for number in range(int(count)):
            yield b"%d %s" % (number, text)

    async def _collect(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def _talk(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"heard " + request

    async def _fail(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(((TRAILER, "no"),))
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())
        raise AssertionError

    async def _wait(self, _request: bytes, _context: Any) -> bytes:
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        return b""
