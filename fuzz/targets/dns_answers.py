"""Whatever a name server sends, a question ends in addresses with a TTL or in NameUnresolved, within its deadline."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from typing import cast

import aiodns

from plugin.errors import NameUnresolved
from plugin.observe.dns import Resolver

CODE = ("plugin.observe.dns",)

_NAME = "db.example"
_TIMEOUT_S = 0.05


class _Server(asyncio.DatagramProtocol):
    """Answers with what a test says, behind the question's own number and text where ``matching``."""

    def __init__(self) -> None:
        self.answer, self.matching = b"", True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        head = data[:2] + self.answer[:10].ljust(10, b"\0") if self.matching else b""
        question = data[12:] if self.matching else b""
        self._transport.sendto(head + question + self.answer[10 if self.matching else 0 :], addr)


class _Bench:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = _Server()
        opened = self.loop.create_datagram_endpoint(lambda: self.server, local_addr=("127.0.0.1", 0))
        transport, _ = self.loop.run_until_complete(opened)
        port = transport.get_extra_info("sockname")[1]
        self._channel = lambda: aiodns.DNSResolver([f"127.0.0.1:{port}"], timeout=_TIMEOUT_S, tries=1, domains=[])

    async def ask(self, family: socket.AddressFamily) -> None:
        resolver = Resolver(lambda names: None, make_channel=self._channel, timeout_s=2.0)
        try:
            addresses, ttl_s = await resolver._question(_NAME, family)
        except NameUnresolved:
            return
        assert addresses
        assert all(isinstance(one, ipaddress.IPv4Address | ipaddress.IPv6Address) for one in addresses)
        assert 0 <= ttl_s < 2**32


@functools.lru_cache(maxsize=1)
def _bench() -> _Bench:
    return _Bench()


def run(data: bytes) -> None:
    bench = _bench()
    choice, bench.server.answer = data[:1], data[1:512]
    bench.server.matching = choice < b"\xf0"
    family = socket.AF_INET6 if choice and choice[0] % 2 else socket.AF_INET
    bench.loop.run_until_complete(asyncio.wait_for(bench.ask(family), 10))
