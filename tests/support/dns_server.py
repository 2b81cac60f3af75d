"""A DNS server on loopback (RFC 1035) that answers with what a test says, and counts the questions."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

A, AAAA = 1, 28
_SERVFAIL, _NXDOMAIN = 2, 3


@dataclass
class DNSServer(asyncio.DatagramProtocol):
    records: dict[str, list[str]] = field(default_factory=dict)
    ttl_s: int = 60
    broken: bool = False
    """Answer every question with SERVFAIL."""
    silent: bool = False
    questions: Counter[str] = field(default_factory=Counter)
    """By name; A and AAAA count one each."""
    port: int = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class is no subclass of DatagramTransport before Python 3.12.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while length := data[at]:
            labels.append(data[at + 1 : at + 1 + length].decode())
            at += 1 + length
        name = ".".join(labels).lower()
        (kind,) = struct.unpack_from(">H", data, at + 1)
        self.questions[name] += 1
        if not self.silent:
            self._transport.sendto(self._answer(data[:2], data[12 : at + 5], name, kind), addr)

    def _answer(self, number: bytes, question: bytes, name: str, kind: int) -> bytes:
        known = self.records.get(name)
        code = _SERVFAIL if self.broken else _NXDOMAIN if known is None else 0
        addresses = [ipaddress.ip_address(text) for text in known or ()] if code == 0 else []
        chosen = [ip for ip in addresses if (ip.version == 6) == (kind == AAAA) and kind in (A, AAAA)]
        header = number + struct.pack(">HHHHH", 0x8180 | code, 1, len(chosen), 0, 0)
        records = [struct.pack(">HHHIH", 0xC00C, kind, 1, self.ttl_s, len(ip.packed)) + ip.packed for ip in chosen]
        return header + question + b"".join(records)


@asynccontextmanager
async def dns_server(**records: list[str]) -> AsyncIterator[DNSServer]:
    """Serve ``records`` (underscores in names stand for dots) until the block ends."""
    server = DNSServer({name.replace("_", "."): addresses for name, addresses in records.items()})
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: server, local_addr=("127.0.0.1", 0)
    )
    server.port = transport.get_extra_info("sockname")[1]
    try:
        yield server
    finally:
        transport.close()
