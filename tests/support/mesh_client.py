"""A client of the mesh without a sidecar: mutual TLS with a leaf that a real agent issued.

It does what a sidecar does at the wire, one connection at a time, and shows what a sidecar hides: the certificate that
was served, and the TLS alert of a refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass
from typing import Any, Self

from cryptography import x509

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import load_key_pair
from plugin.dev.pki import KeyPair
from plugin.errors import ConsulRejected
from tests.support.eventually import SCALE

_DEADLINE_S = 20.0
_SILENCE_S = 1.0
_TOO_MANY = 429


class Refused(Exception):
    """The other side ended the connection. ``alert`` is the TLS alert as OpenSSL names it
    (``TLSV1_ALERT_UNKNOWN_CA``), ``reset`` for a TCP reset, ``eof`` for an end without an alert."""

    def __init__(self, alert: str) -> None:
        super().__init__(alert)
        self.alert = alert


class MeshConnection:
    """An established TLS session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        session: ssl.SSLObject = writer.get_extra_info("ssl_object")
        served = session.getpeercert(binary_form=True)
        assert served is not None
        self.served_certificate = x509.load_der_x509_certificate(served)
        self.tls_version = session.version()

    @property
    def served_spiffe_id(self) -> str:
        """The only URI among the SANs of the served certificate."""
        names = self.served_certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return uri

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            with _refusals():
                self.writer.write(data)
                await self.writer.drain()

    async def receive(self, limit: int = 65536) -> bytes:
        """What comes next; empty for EOF. :raises Refused: for an alert or a reset."""
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            with _refusals():
                return await self.reader.read(limit)

    async def receive_exactly(self, size: int) -> bytes:
        """:raises Refused: for an alert, a reset or an EOF before that many bytes."""
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            try:
                with _refusals():
                    return await self.reader.readexactly(size)
            except asyncio.IncompleteReadError as error:
                raise Refused("eof") from error

    async def exchange(self, data: bytes) -> bytes:
        """Send ``data`` and receive as many bytes: for an echo service."""
        await self.send(data)
        return await self.receive_exactly(len(data))

    async def ended(self, timeout_s: float = _DEADLINE_S) -> str:
        """Wait for the other side to end it; how: ``eof``, ``reset`` or the alert. Bytes before that are dropped."""
        async with asyncio.timeout(timeout_s * SCALE):
            try:
                with _refusals():
                    while await self.reader.read(65536):
                        pass
            except Refused as refused:
                return refused.alert
        return "eof"

    def close(self) -> None:
        self.writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class _refusals:
    """Turns the ways in which a peer ends a session into :class:`Refused`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ssl.SSLError):
            raise Refused(error.reason or str(error)) from error
        if isinstance(error, ConnectionError):
            raise Refused("reset") from error


async def _leaf(agent: ConsulAgent, service: str, token: str | None) -> Any:
    """Consul signs so many certificates a second (``csr_max_per_second``, 50) and tells others to come again."""
    async with asyncio.timeout(_DEADLINE_S * SCALE):
        while True:
            try:
                return await agent.api("GET", f"/v1/agent/connect/ca/leaf/{service}", token=token)
            except ConsulRejected as error:
                if error.status != _TOO_MANY:
                    raise
            await asyncio.sleep(_SILENCE_S / 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshClient:
    """One service of the mesh, as a client."""

    roots_pem: str
    """What a served certificate must come from."""
    trust_domain: str
    leaf: KeyPair | None
    """``None``: shows no certificate."""

    @classmethod
    async def of(cls, agent: ConsulAgent, service: str, *, token: str | None = None) -> Self:
        """``service``, with a leaf that ``agent`` issues (``/v1/agent/connect/ca/leaf``)."""
        roots = await agent.api("GET", "/v1/agent/connect/ca/roots", token=token)
        leaf = await _leaf(agent, service, token)
        return cls(
            roots_pem="".join(root["RootCert"] for root in roots["Roots"]),
            trust_domain=roots["TrustDomain"],
            leaf=KeyPair(leaf["CertPEM"], leaf["PrivateKeyPEM"]),
        )

    def server_name(
        self, service: str, *, subset: str = "", namespace: str = "default", datacenter: str = "dc1"
    ) -> str:
        """What a sidecar sends as SNI for ``service``."""
        name = f"{service}.{namespace}.{datacenter}.internal.{self.trust_domain}"
        return f"{subset}.{name}" if subset else name

    def context(self) -> ssl.SSLContext:
        """Trusts the roots, shows the leaf."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The mesh names services by SPIFFE ID, not by host name; served_spiffe_id is for the test to compare.
        context.check_hostname = False
        context.load_verify_locations(cadata=self.roots_pem)
        if self.leaf is not None:
            load_key_pair(context, self.leaf)
        return context

    async def connect(
        self,
        address: str,
        port: int,
        server_name: str | None,
        *,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        local_address: str = "",
    ) -> MeshConnection:
        """``server_name`` is sent as SNI, whole; ``None`` sends none. ``local_address`` is the IP address that the
        other side sees: on loopback, any of 127.0.0.0/8.

        With TLS 1.3 a refusal of the client's certificate arrives after the handshake: see :meth:`refusal`.

        :raises Refused: when the handshake is refused.
        """
        context = self.context()
        context.minimum_version = minimum
        context.maximum_version = maximum
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            with _refusals():
                opened = await asyncio.open_connection(
                    address,
                    port,
                    ssl=context,
                    server_hostname=server_name if server_name is not None else "",
                    local_addr=(local_address, 0) if local_address else None,
                )
        return MeshConnection(*opened)

    async def refusal(
        self,
        address: str,
        port: int,
        server_name: str | None,
        *,
        minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> str:
        """Connect, and say how it was refused: the alert, ``reset`` or ``eof``.

        Listens for a moment before it sends anything: a byte sent to a socket that is closed already is answered with
        a reset, which would hide the alert.

        :raises AssertionError: when it is let through: something came back, or it stays open.
        """
        try:
            connection = await self.connect(address, port, server_name, minimum=minimum, maximum=maximum)
        except Refused as refused:
            return refused.alert
        async with connection:
            try:
                answer = await self._first_answer(connection)
            except Refused as refused:
                return refused.alert
            except TimeoutError as error:
                raise AssertionError("not refused: the connection stays open") from error
            assert not answer, f"not refused: it answered {answer[:80]!r}"
            return "eof"

    @staticmethod
    async def _first_answer(connection: MeshConnection) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SILENCE_S * SCALE):
                return await connection.receive()
        await connection.send(b"x")
        return await connection.receive()
