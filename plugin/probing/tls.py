"""TLS as a client, with what is shown told: for one connection by hand, never for traffic."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from plugin.errors import GatewayError
from plugin.spans import duration, point

TIMEOUT_S = 5.0


class ProbeFailed(GatewayError):
    """The text says what happened instead."""


@dataclass(slots=True)
class Opened:
    """A connection, and how long its opening took."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ms: float

    @property
    def local(self) -> str:
        host, port = self.writer.get_extra_info("sockname")[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await self.writer.wait_closed()


async def dial(host: str, port: int) -> Opened:
    """TCP. :raises ProbeFailed: when nobody answers."""
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise ProbeFailed(f"no answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise ProbeFailed(error.strerror or str(error)) from error
    return Opened(reader, writer, _since(began_s))


async def handshake(opened: Opened, context: ssl.SSLContext, server_name: str) -> float:
    """TLS on it; how long that took, ms. :raises ProbeFailed: when it is refused, or what is shown is not trusted."""
    began_s = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await opened.writer.start_tls(context, server_hostname=server_name or "")
    except TimeoutError:
        raise ProbeFailed(f"the handshake has not ended within {TIMEOUT_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise ProbeFailed(f"its certificate is not accepted: {error.verify_message}") from error
    except ssl.SSLError as error:
        raise ProbeFailed(f"the handshake was refused: {error.reason or error}") from error
    except OSError as error:
        raise ProbeFailed(f"the connection ended in the handshake: {error.strerror or error}") from error
    return _since(began_s)


async def first_bytes(opened: Opened, wait_s: float) -> bytes | None:
    """What comes within ``wait_s``; empty for an end, ``None`` for nothing. :raises ProbeFailed: for an alert."""
    try:
        async with asyncio.timeout(wait_s):
            return await opened.reader.read(65536)
    except TimeoutError:
        return None
    except ssl.SSLError as error:
        raise ProbeFailed(f"it was ended by the TLS alert {error.reason or error}") from error
    except OSError as error:
        raise ProbeFailed(f"it was reset: {error.strerror or error}") from error


def mesh_context(roots_pem: str, chain_pem: str, key_pem: str) -> ssl.SSLContext:
    """As a sidecar has it: names are SPIFFE IDs, which are for the caller to compare."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots_pem)
    if chain_pem:
        with _in_memory(chain_pem) as chain, _in_memory(key_pem) as key:
            context.load_cert_chain(chain, key)
    return context


def upstream_context(ca_pem: str, *, names_matter: bool) -> ssl.SSLContext:
    """As the gateway trusts an external service: any certificate of the CAFile is an anchor."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = names_matter
    context.load_verify_locations(cadata=ca_pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def shown(opened: Opened) -> tuple[x509.Certificate, str]:
    """The other side's certificate, and the version of TLS."""
    session = opened.writer.get_extra_info("ssl_object")
    der = session.getpeercert(binary_form=True)
    if der is None:
        raise ProbeFailed("it has shown no certificate")
    return x509.load_der_x509_certificate(der), str(session.version())


def told(certificate: x509.Certificate, now_s: float) -> Iterator[str]:
    """Who it is, who has signed it, and until when."""
    names = ", ".join(names_of(certificate)) or "no name"
    yield f"Certificate of {names}, signed by {certificate.issuer.rfc4514_string() or 'nobody who is named'}."
    ends_s = certificate.not_valid_after_utc.timestamp()
    left = f"for {duration(ends_s - now_s)}" if ends_s > now_s else "it has expired"
    yield f"Valid until {point(ends_s)} ({left})."


def names_of(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [str(one.value) for one in names]


@contextlib.contextmanager
def _in_memory(pem: str) -> Iterator[str]:
    """A path under which the library can read it: keys never touch a disk."""
    descriptor = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, pem.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _since(began_s: float) -> float:
    return round((time.perf_counter() - began_s) * 1_000, 2)
