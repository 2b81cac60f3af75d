"""TLS sessions over memory BIOs: bytes in, bytes out, and OpenSSL's errors as ours.

A session never touches a socket. What it shows and whom it trusts is its context's affair (:mod:`proxy.tls.context`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography import x509
from OpenSSL import SSL

from proxy.errors import PeerError, UpstreamError
from proxy.model import CloseReason
from proxy.tls.openssl import Buffer, der_of, drain_errors, ffi, lib
from proxy.tls.upstream_name import check_name, server_name_of

if TYPE_CHECKING:
    from proxy.tls.client_trust import ClientTrust
    from proxy.tls.context import FrontContext, ServiceContext, UpstreamContext

_FULL_RECORD = 16_384
"""Bytes of data in the largest record (RFC 8446 section 5.1)."""
_WORTH_LENDING = 16_384
"""Bytes. Below it, copying is cheaper than changing the buffer."""

WOULD_BLOCK = -1
"""``TLSSession.read``: nothing to read until more ciphertext is fed."""
CLOSE_NOTIFY = 0
"""``TLSSession.read``: the peer finished its direction properly."""
FULL = 1
"""``TLSSession.read``: there may be more, but no room for another record."""
RECORD_SIZE = 17 * 1024
"""Bytes of the largest record (RFC 8446 section 5.2: 2^14 + 256, and the header), generously."""


class TLSSession:
    """One session, either side. Ciphertext goes in with :meth:`feed` and waits in :meth:`outgoing`."""

    __slots__ = ("_borrowed", "_context", "_incoming", "_outgoing", "_pointer", "_ssl")

    def __init__(self, context: SSL.Context) -> None:
        self._context = context
        self._ssl = ffi.gc(lib.SSL_new(context._context), lib.SSL_free)
        self._incoming = lib.BIO_new(lib.BIO_s_mem())
        self._outgoing = lib.BIO_new(lib.BIO_s_mem())
        lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)  # SSL_free frees them
        self._pointer = ffi.new("char **")
        self._borrowed = False

    def feed(self, ciphertext: Buffer, length: int) -> None:
        """Give it ciphertext, by copying."""
        if self._borrowed:
            self.keep()
        lib.BIO_write(self._incoming, ciphertext.pointer, length)

    def lend(self, ciphertext: Buffer, length: int) -> None:
        """Give it ciphertext without copying, where that pays.

        The buffer must not change before :meth:`read` has answered ``WOULD_BLOCK``, or :meth:`keep` was called.
        """
        if length < _WORTH_LENDING or lib.BIO_get_mem_data(self._incoming, self._pointer) > 0:
            self.feed(ciphertext, length)
            return
        self._replace_incoming(lib.BIO_new_mem_buf(ciphertext.pointer, length))
        lib.BIO_set_mem_eof_return(self._incoming, -1)  # empty means "not yet", never "the end"
        self._borrowed = True

    def keep(self) -> None:
        """Copy what was lent and is not read yet."""
        if not self._borrowed:
            return
        unread = lib.BIO_get_mem_data(self._incoming, self._pointer)
        own = lib.BIO_new(lib.BIO_s_mem())
        if unread > 0:
            lib.BIO_write(own, self._pointer[0], unread)
        self._replace_incoming(own)
        self._borrowed = False

    def _replace_incoming(self, bio: Any) -> None:
        # The former one is freed; the outgoing one is the same, and OpenSSL leaves it as it is.
        self._incoming = bio
        lib.SSL_set_bio(self._ssl, bio, self._outgoing)

    def outgoing(self) -> memoryview | None:
        """Ciphertext to be sent, valid until the next call; ``None`` when there is none."""
        length = lib.BIO_get_mem_data(self._outgoing, self._pointer)
        if length <= 0:
            return None
        return memoryview(ffi.buffer(self._pointer[0], length))

    def sent(self, length: int, scratch: Buffer) -> None:
        """Forget ``length`` bytes of :meth:`outgoing`. ``scratch`` is overwritten."""
        while length > 0:
            taken = lib.BIO_read(self._outgoing, scratch.pointer, min(length, scratch.size))
            if taken <= 0:
                raise AssertionError("more bytes were sent than there were")
            length -= taken

    def read(self, plaintext: Buffer) -> tuple[int, int]:
        """Decrypt into ``plaintext`` what is complete and fits.

        :returns: how many bytes, and why there are no more: ``WOULD_BLOCK``, ``CLOSE_NOTIFY`` or ``FULL``.
        """
        # One call of the library for each record: at full speed this loop is what the interpreter is busy with.
        read, ssl = lib.SSL_read, self._ssl
        pointer, size = plaintext.pointer, plaintext.size
        total = 0
        while size - total >= RECORD_SIZE:
            length = read(ssl, pointer + total, size - total)
            if length <= 0:
                return total, self._no_progress(length)
            total += length
            # Behind a record that is not full there is mostly nothing, and asking OpenSSL for it costs three calls.
            # It reads no further than the record that it is at, so what is left is in the BIO.
            if length < _FULL_RECORD and lib.BIO_get_mem_data(self._incoming, self._pointer) <= 0:
                return total, WOULD_BLOCK
        return total, FULL

    def write(self, plaintext: Buffer, length: int) -> None:
        """Encrypt all of it; the ciphertext waits in :meth:`outgoing`."""
        self._write(plaintext.pointer, length)

    def write_data(self, data: bytes | memoryview) -> None:
        """As :meth:`write`, of any buffer."""
        self._write(ffi.from_buffer(data), len(data))

    def _write(self, pointer: Any, length: int) -> None:
        written = lib.SSL_write(self._ssl, pointer, length)
        if written != length:
            self._no_progress(written)
            raise self._failure("the session does not take data")

    def close_notify(self) -> None:
        """Finish our direction. The ciphertext waits in :meth:`outgoing`."""
        if lib.SSL_shutdown(self._ssl) < 0:
            lib.ERR_clear_error()

    def version(self) -> str:
        """``TLSv1.2``, ``TLSv1.3``."""
        text: str = ffi.string(lib.SSL_get_version(self._ssl)).decode()
        return text

    def alpn(self) -> bytes:
        """The protocol that was negotiated (RFC 7301); empty: none was."""
        text, length = ffi.new("unsigned char **"), ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(self._ssl, text, length)
        return bytes(ffi.buffer(text[0], length[0])) if length[0] else b""

    def has_peer_certificate(self) -> bool:
        raw = lib.SSL_get_peer_certificate(self._ssl)
        if raw == ffi.NULL:
            return False
        lib.X509_free(raw)
        return True

    def peer_der(self) -> bytes:
        """The peer's certificate; empty when it has none."""
        raw = lib.SSL_get_peer_certificate(self._ssl)
        if raw == ffi.NULL:
            return b""
        try:
            return der_of(raw)
        finally:
            lib.X509_free(raw)

    def broken(self, detail: str) -> Exception:
        """The error with which to end a session whose peer keeps the letter of the protocol and misuses it."""
        return self._failure(detail)

    def hint(self) -> str:
        """What may be why the peer ends the session without a word; empty when nothing is known."""
        return ""

    def _no_progress(self, result: int) -> int:
        error = lib.SSL_get_error(self._ssl, result)
        if error in (lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_WANT_WRITE):
            return WOULD_BLOCK
        if error == lib.SSL_ERROR_ZERO_RETURN:
            return CLOSE_NOTIFY
        raise self._failure(drain_errors() or "the peer broke the TLS protocol")

    def _failure(self, detail: str) -> Exception:
        raise NotImplementedError

    def _verify_error(self) -> str:
        code = lib.SSL_get_verify_result(self._ssl)
        if code == 0:
            return ""
        text: str = ffi.string(lib.X509_verify_cert_error_string(code)).decode()
        return text


_NOT_TLS = ("http request", "https proxy request", "wrong version number", "packet length too long")


class ServerSession(TLSSession):
    """The mesh's side of a connection."""

    __slots__ = ("_front", "chosen", "leaf_der", "objection", "server_name", "uris", "vouched_by")

    def __init__(self, front: FrontContext) -> None:
        super().__init__(front.context)
        lib.SSL_set_accept_state(self._ssl)
        self._front = front
        self.server_name = ""
        self.leaf_der = b""
        """The client's leaf, once its chain was looked at."""
        self.vouched_by: ClientTrust | None = None
        """Whose root stands behind the leaf."""
        self.uris: tuple[str, ...] | None = None
        """The URI SANs of the leaf whose chain was found good; ``None`` before that."""
        self.objection = ""
        """Why the identity in a good certificate may not call."""
        self.chosen: ServiceContext | None = None

    def handshake(self) -> bool:
        """Go on as far as the bytes reach; true when done.

        :raises PeerError: when the client is refused. An alert for it waits in :meth:`outgoing`.
        """
        self._front._handshaking = self
        try:
            result = lib.SSL_do_handshake(self._ssl)
        finally:
            self._front._handshaking = None
        if result == 1:
            return True
        if self._no_progress(result) == CLOSE_NOTIFY:
            raise PeerError(CloseReason.TLS_FAILED, "the client closed during the handshake")
        return False

    def peer_uris(self) -> tuple[str, ...]:
        """The URI SANs of the client's verified certificate, once the handshake is done.

        :raises PeerError: when it has none. The handshake cannot succeed so; nobody gets in if it ever does.
        """
        if self.uris is None or not self.has_peer_certificate() or lib.SSL_get_verify_result(self._ssl) != 0:
            raise PeerError(CloseReason.NO_CERTIFICATE, "the client has no verified certificate")
        self.leaf_der = b""  # the handshake is done; an idle connection need not carry it
        return self.uris

    def peer_certificates(self) -> tuple[bytes, ...]:
        """What the client presented, DER: its own certificate, then the others as they came."""
        chain = lib.SSL_get_peer_cert_chain(self._ssl)  # of a server it is without the client's own
        count = lib.sk_X509_num(chain) if chain != ffi.NULL else 0
        return (self.peer_der(), *(der_of(lib.sk_X509_value(chain, index)) for index in range(count)))

    def _failure(self, detail: str) -> PeerError:
        if self.chosen is None:
            if any(mark in detail for mark in _NOT_TLS):
                return PeerError(CloseReason.NOT_TLS, f"the client does not speak TLS: {detail}")
            if self.server_name:
                return PeerError(
                    CloseReason.UNKNOWN_SERVER_NAME, f"no linked service answers to the name {self.server_name!r}"
                )
            if "callback failed" in detail:
                return PeerError(CloseReason.NO_SERVER_NAME, "the client sent no server name")
        if "peer did not return a certificate" in detail:
            return PeerError(CloseReason.NO_CERTIFICATE, "the client sent no certificate")
        if self.objection:
            return PeerError(CloseReason.BAD_IDENTITY, self.objection)
        if verify_error := self._verify_error():
            return PeerError(CloseReason.UNTRUSTED_CERTIFICATE, f"the client's certificate: {verify_error}")
        return PeerError(CloseReason.TLS_FAILED, detail)


_CERTIFICATE_WANTED = (
    "the external service asked for a client certificate and the link has none: set CertFile and KeyFile in the link"
)
_ALERT = "alert"


class UpstreamSession(TLSSession):
    """The external service's side of a connection."""

    __slots__ = ("_expected_name", "_upstream", "certificate_missing")

    def __init__(self, upstream: UpstreamContext) -> None:
        super().__init__(upstream.context)
        lib.SSL_set_connect_state(self._ssl)
        self._upstream = upstream
        self._expected_name = upstream.server_name
        self.certificate_missing = False
        """The server asked for a client certificate, and there is none to show."""
        if server_name := server_name_of(self._expected_name):
            lib.SSL_set_tlsext_host_name(self._ssl, server_name.encode())

    def handshake(self) -> bool:
        """Go on as far as the bytes reach; true when done and the server's name was checked.

        :raises UpstreamError: when the server is not the one that the link describes.
        """
        self._upstream._handshaking = self
        try:
            result = lib.SSL_do_handshake(self._ssl)
        finally:
            self._upstream._handshaking = None
        if result != 1:
            if self._no_progress(result) == CLOSE_NOTIFY:
                raise self._failure("the external service closed during the handshake")
            return False
        der = self.peer_der()
        if not der or lib.SSL_get_verify_result(self._ssl) != 0:
            raise self._failure("the external service has no verified certificate")
        if self._expected_name:
            check_name(x509.load_der_x509_certificate(der), self._expected_name)
        return True

    def hint(self) -> str:
        return _CERTIFICATE_WANTED if self.certificate_missing else ""

    def _failure(self, detail: str) -> UpstreamError:
        if verify_error := self._verify_error():
            detail = f"the certificate of the external service is not trusted by CAFile: {verify_error}"
        elif _ALERT in detail:
            detail = f"the external service refused the gateway: {detail}"
            if self.certificate_missing:
                detail += f"; {_CERTIFICATE_WANTED}"
        return UpstreamError(CloseReason.UPSTREAM_TLS_FAILED, detail)
