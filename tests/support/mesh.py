"""A hand-made mesh: one authority, its services, and clients with any certificate."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from plugin.dev.pki import Authority, KeyPair
from proxy.model import Endpoint, Leaf, Mesh, ServerName, Service, ServiceName
from proxy.rules import Action, Intention

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


def allow(source: str, precedence: int = 9) -> Intention:
    return Intention(source=source, action=Action.ALLOW, precedence=precedence, destination="db")


def deny(source: str, precedence: int = 9) -> Intention:
    return Intention(source=source, action=Action.DENY, precedence=precedence, destination="db")


def sni(service: str) -> str:
    return f"{service}.default.dc1.internal.{TRUST_DOMAIN}"


class HandMadeMesh:
    """What Consul's CA does, in memory."""

    def __init__(self) -> None:
        self.authority = Authority("Mesh CA", trust_domain=TRUST_DOMAIN)
        self.also_trusted = ""
        """One more root, PEM."""

    def settings(self, default: Action | None = Action.DENY, **fields: Any) -> Mesh:
        fields.setdefault("roots_pem", tuple(filter(None, (self.authority.certificate_pem, self.also_trusted))))
        return Mesh(trust_domain=TRUST_DOMAIN, datacenter="dc1", default_action=default, **fields)

    def leaf(self, service: str) -> KeyPair:
        return self.authority.leaf(TRUST_DOMAIN, service)

    def service(
        self, name: str, *ports: int, intentions: Any = (), leaf: KeyPair | None = None, **fields: Any
    ) -> Service:
        """A linked service whose instances listen on loopback ``ports``."""
        pair = leaf or self.leaf(name)
        endpoints = tuple(Endpoint("127.0.0.1", port, instance=f"node/{name}-{port}") for port in ports)
        return Service(
            name=ServiceName(name),
            leaf=Leaf(
                certificate_chain_pem=pair.certificate_pem,
                private_key_pem=pair.private_key_pem,
                spiffe_id=f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name}",
                serial_number="01",
                not_before_s=time.time(),
                not_after_s=time.time() + 3600,
            ),
            server_names=(ServerName(sni(name), endpoints),),
            intentions=intentions,
            **fields,
        )

    def client_context(
        self, pair: KeyPair | None, *, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ) -> ssl.SSLContext:
        """Verifies the gateway against the mesh CA; presents ``pair``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.authority.certificate_pem)
        context.maximum_version = maximum
        if pair is not None:
            with tempfile.TemporaryDirectory() as folder:
                context.load_cert_chain(*pair.write(Path(folder), "client"))
        return context


class MeshClient:
    """One mutual-TLS connection to a gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def exchange(self, data: bytes) -> bytes:
        """Send ``data`` and read as many bytes back."""
        self.writer.write(data)
        await self.writer.drain()
        return await asyncio.wait_for(self.reader.readexactly(len(data)), 20)

    async def ended(self) -> bytes:
        """What still comes until the gateway closes."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await asyncio.wait_for(self.reader.read(), 20)
        return b""

    @property
    def served_certificate(self) -> bytes:
        """DER of what the gateway presented."""
        der: bytes = self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return der


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext, server_name: str) -> AsyncIterator[MeshClient]:
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name), 20
    )
    try:
        yield MeshClient(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 5)


async def alert_of(port: int, context: ssl.SSLContext, server_name: str | None) -> str:
    """Try to connect and to read: the TLS alert that ends it, as OpenSSL calls it; empty when there is none."""
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name or ""), 20
        )
    except ssl.SSLError as error:
        return error.reason or ""
    except ConnectionError:
        return ""
    try:
        await asyncio.wait_for(reader.read(1), 20)
    except ssl.SSLError as error:
        return error.reason or ""
    except ConnectionError:
        return ""
    finally:
        writer.close()
    return ""


class EchoServer:
    """An external service that sends back what it gets, and passes the end on."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> EchoServer:
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
