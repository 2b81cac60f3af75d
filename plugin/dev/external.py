"""Small external services, as odd as real ones: for tests in this process, and for ``dev`` as a command.

``python -m plugin.dev.external hello --port 9001`` serves one until it is ended. With ``--certificate`` and ``--key``
it speaks TLS, with ``--client-ca`` it also asks for a client certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import click

from plugin.dev.pki import KeyPair
from plugin.dev.processes import Launcher

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection; when it returns, the connection is closed."""

_CHUNK = 65536
_CLOSE_TIMEOUT_S = 5.0


class ExternalService(Launcher):
    """A server on loopback that serves every connection with one behaviour and counts what it sees."""

    def __init__(
        self,
        handler: Handler,
        *,
        tls: KeyPair | None = None,
        client_ca_pem: str | None = None,
        alpn: Sequence[str] = (),
        address: str = "127.0.0.1",
        port: int = 0,
        min_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        max_tls_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        """``client_ca_pem`` makes a client certificate of that CA a condition (mutual TLS). A client that is refused
        sees the connection end without an alert: asyncio drops it. ``alpn`` are the protocols that it knows by name."""
        self.address = address
        self.port = port
        self.accepted = 0
        """Connections so far; with TLS, those whose handshake succeeded."""
        self.client_certificates: list[bytes] = []
        """DER, one for each connection that showed one."""
        self.server_names: list[str | None] = []
        """What each TLS client asked for by SNI."""
        self._handler = handler
        self._client_ca_pem = client_ca_pem
        self._alpn = list(alpn)
        self._versions = min_tls_version, max_tls_version
        self._context = None if tls is None else self._server_context(tls)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """Open right now."""
        return len(self._open)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and end what is open."""
        if self._server is None:
            return
        self._server.close()
        self.end_connections()
        # A client in the middle of its handshake may keep the server from closing; it is not worth waiting for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._server.wait_closed()
        self._server = None

    async def renew(self, tls: KeyPair) -> None:
        """Show another certificate from the next handshake on, and resume no earlier session. What is open stays."""
        if self._server is not None:
            self._server.close()
        self._context = self._server_context(tls)
        await self.start()

    def end_connections(self, *, reset: bool = False) -> None:
        """End every open connection, with a TCP reset if wanted; go on listening."""
        for writer in list(self._open):
            if reset:
                _reset_on_close(writer)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._open.add(writer)
        secured = writer.get_extra_info("ssl_object")
        if secured is not None and (certificate := secured.getpeercert(binary_form=True)):
            self.client_certificates.append(certificate)
        try:
            await self._handler(reader, writer)
        except (OSError, EOFError):
            # The peer's reset or EOF is the end of the connection, not an error of the service.
            pass
        finally:
            self._open.discard(writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _server_context(self, tls: KeyPair) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self._versions
        context.sni_callback = self._saw_server_name
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        load_key_pair(context, tls)
        if self._client_ca_pem is not None:
            context.load_verify_locations(cadata=self._client_ca_pem)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _saw_server_name(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        self.server_names.append(name)


def load_key_pair(context: ssl.SSLContext, pair: KeyPair) -> None:
    """The ``ssl`` module reads certificates from files only; these are gone when it has."""
    with tempfile.TemporaryDirectory(prefix="consul-tgw-") as folder:
        context.load_cert_chain(*pair.write(Path(folder), "pair"))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what arrives, and EOF after EOF."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def slow_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delay_s: float = 0.5) -> None:
    """As :func:`echo`, thinking ``delay_s`` seconds about each chunk."""
    while data := await reader.read(_CHUNK):
        await asyncio.sleep(delay_s)
        writer.write(data)
        await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first bytes with a TCP reset."""
    await reader.read(_CHUNK)
    _reset_on_close(writer)


async def banner_first(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, banner: bytes = b"220 ready\r\n"
) -> None:
    """Speak before the client does, as SMTP, SSH and MySQL do; then echo."""
    writer.write(banner)
    await writer.drain()
    await echo(reader, writer)


async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to EOF, then send the number of bytes, in decimal."""
    total = 0
    while data := await reader.read(_CHUNK):
        total += len(data)
    writer.write(str(total).encode())
    await writer.drain()


async def source(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, size: int | None = None) -> None:
    """Send ``size`` bytes of zeros, or without end, whatever the client does; then EOF."""
    chunk = bytes(_CHUNK)
    left = size
    while left is None or left > 0:
        part = chunk if left is None or left >= _CHUNK else chunk[:left]
        writer.write(part)
        await writer.drain()
        left = None if left is None else left - len(part)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read and never answer; close when the client has."""
    while await reader.read(_CHUNK):
        pass


async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, name: str = "external service") -> None:
    """HTTP/1.1, kept alive: answer every request with its request line and the service's name."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        request_line = head.split(b"\r\n", 1)[0]
        await reader.readexactly(_content_length(head))
        body = b"Hello from " + name.encode() + b": " + request_line + b"\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body
        )
        await writer.drain()
        if b"\r\nconnection: close\r\n" in head.lower():
            return


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    # SO_LINGER with zero seconds turns close into RST.
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


BEHAVIOURS: dict[str, Handler] = {
    "echo": echo,
    "slow-echo": slow_echo,
    "reset": reset,
    "banner-first": banner_first,
    "sink": sink,
    "source": source,
    "silent": silent,
    "hello": hello,
}


@click.command()
@click.argument("behaviour", type=click.Choice(sorted(BEHAVIOURS)))
@click.option("--name", default="external service", help="What `hello` calls itself.")
@click.option("--address", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0: any free one.")
@click.option("--certificate", type=click.Path(exists=True, path_type=Path), help="PEM; speak TLS.")
@click.option("--key", type=click.Path(exists=True, path_type=Path), help="PEM; the certificate's.")
@click.option("--client-ca", type=click.Path(exists=True, path_type=Path), help="PEM; ask clients for one of it.")
def main(
    behaviour: str,
    name: str,
    address: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None,
) -> None:
    """Serve BEHAVIOUR until ended."""
    if (certificate is None) != (key is None) or (client_ca is not None and certificate is None):
        raise click.UsageError("--certificate and --key belong together, and --client-ca needs both")
    tls = KeyPair(certificate.read_text(), key.read_text()) if certificate and key else None
    handler = functools.partial(hello, name=name) if behaviour == "hello" else BEHAVIOURS[behaviour]
    client_ca_pem = client_ca.read_text() if client_ca is not None else None
    service = ExternalService(handler, tls=tls, client_ca_pem=client_ca_pem, address=address, port=port)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_until_ended(service, behaviour))


async def _serve_until_ended(service: ExternalService, behaviour: str) -> None:
    async with service:
        click.echo(f"{behaviour} listening on {service.address}:{service.port}")
        await asyncio.Event().wait()


if __name__ == "__main__":
    main()
