"""A DNS server on loopback (RFC 1035, UDP and TCP) that answers with what a test says, and counts the questions."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

A, CNAME, AAAA = 1, 5, 28
_SERVFAIL, _NXDOMAIN = 2, 3
_ANSWER, _TRUNCATED = 0x8180, 0x0200
_LARGEST_DATAGRAM = 512
_TRIES = 50


@dataclass
class DNSServer(asyncio.DatagramProtocol):
    records: dict[str, list[str]] = field(default_factory=dict)
    """Addresses by name. A name without addresses exists and has none; any other name does not exist."""
    aliases: dict[str, str] = field(default_factory=dict)
    """``CNAME`` records."""
    ttl_s: int = 60
    ttls_s: dict[str, int] = field(default_factory=dict)
    """Of single names."""
    broken: bool = False
    """Answer every question with SERVFAIL."""
    silent: bool = False
    broken_for: set[tuple[str, int]] = field(default_factory=set)
    """As ``broken``, for a name and a type alone."""
    silent_for: set[tuple[str, int]] = field(default_factory=set)
    questions: Counter[str] = field(default_factory=Counter)
    """By name; A and AAAA count one each."""
    streams: int = 0
    """Questions that came by TCP, because the answer did not fit into a datagram."""
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class is no subclass of DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._answer(data)
        if answer is not None:
            if len(answer) > _LARGEST_DATAGRAM:
                answer = answer[:2] + struct.pack(">HHHHH", _ANSWER | _TRUNCATED, 1, 0, 0, 0) + _question(data)[2]
            self._transport.sendto(answer, addr)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                answer = self._answer(await reader.readexactly(length))
                self.streams += 1
                if answer is not None:
                    writer.write(struct.pack(">H", len(answer)) + answer)
        writer.close()

    def _answer(self, data: bytes) -> bytes | None:
        name, kind, question = _question(data)
        self.questions[name] += 1
        if self.silent or (name, kind) in self.silent_for:
            return None
        exists, records = self._records(name, kind)
        code = 0 if exists else _NXDOMAIN
        if self.broken or (name, kind) in self.broken_for:
            code, records = _SERVFAIL, []
        return data[:2] + struct.pack(">HHHHH", _ANSWER | code, 1, len(records), 0, 0) + question + b"".join(records)

    def _records(self, name: str, kind: int) -> tuple[bool, list[bytes]]:
        """Whether the name at the end of the aliases exists, and the answer's records."""
        found = []
        while (alias := self.aliases.get(name)) is not None:
            found.append(self._record(name, CNAME, _encoded(alias)))
            name = alias
        addresses = self.records.get(name)
        found += [self._record(name, kind, packed) for packed in _packed(addresses or (), kind)]
        return addresses is not None, found

    def _record(self, name: str, kind: int, data: bytes) -> bytes:
        ttl_s = self.ttls_s.get(name, self.ttl_s)
        return _encoded(name) + struct.pack(">HHIH", kind, 1, ttl_s, len(data)) + data


def _question(data: bytes) -> tuple[str, int, bytes]:
    """The name and the type that are asked for, and the bytes that say so."""
    labels, at = [], 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    (kind,) = struct.unpack_from(">H", data, at + 1)
    return ".".join(labels).lower(), kind, data[12 : at + 5]


def _packed(addresses: list[str] | tuple[str, ...], kind: int) -> Iterator[bytes]:
    for address in map(ipaddress.ip_address, addresses):
        if kind == (AAAA if address.version == 6 else A):
            yield address.packed


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


@asynccontextmanager
async def dns_server(**records: list[str]) -> AsyncIterator[DNSServer]:
    """Serve ``records`` (underscores in names stand for dots) until the block ends."""
    server = DNSServer({name.replace("_", "."): addresses for name, addresses in records.items()})
    transport, streams = await _listen(server)
    async with streams:
        try:
            yield server
        finally:
            transport.close()


async def _listen(server: DNSServer) -> tuple[asyncio.BaseTransport, asyncio.Server]:
    """Both on one port."""
    for _ in range(_TRIES):
        streams = await asyncio.start_server(server.serve_stream, "127.0.0.1", 0)
        server.port = streams.sockets[0].getsockname()[1]
        with contextlib.suppress(OSError):
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: server, local_addr=("127.0.0.1", server.port)
            )
            return transport, streams
        streams.close()
    raise AssertionError("no port is free for both UDP and TCP")
