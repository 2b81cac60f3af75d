"""TLS over memory BIOs: the only module that knows OpenSSL.

It owns contexts (made off the hot path, replaced as a whole), sessions (bytes in, bytes out) and the translation
of OpenSSL's errors into ours. It never touches a socket or a file: keys come as PEM text and stay in memory.

``pyOpenSSL`` builds the contexts. Sessions use the same library's binding directly, for two things that its
``Connection`` cannot do: answer an unknown server name with the alert of RFC 6066 section 3, and move bulk data
without one allocation and copy per TLS record.

Session resumption is off on the front context, without exception: a session made under one service's trust would be
accepted under another's, and after its root was removed, because resumption verifies no certificate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from proxy.errors import MaterialError, PeerError, UpstreamError
from proxy.model import CloseReason, Leaf, Mesh, UpstreamTLS
from proxy.upstream_name import check_name, is_ip_address

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]

_SSL_MODE_NO_AUTO_CHAIN = 0x8  # openssl/ssl.h; the binding does not name it
_ALERT_UNRECOGNIZED_NAME = 112  # RFC 6066 section 3
_PEM_MARK = "-----BEGIN CERTIFICATE-----"
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_SUITES_TLS13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# Cheapest first; the hybrid group stays on offer for clients that insist on it.
_GROUPS = b"X25519:P-256:X25519MLKEM768:P-384"
_VERSIONS = {
    "TLSv1_0": SSL.TLS1_VERSION,
    "TLSv1_1": SSL.TLS1_1_VERSION,
    "TLSv1_2": SSL.TLS1_2_VERSION,
    "TLSv1_3": SSL.TLS1_3_VERSION,
}

_WORTH_LENDING = 16_384
"""Bytes. Below it, copying is cheaper than changing the buffer."""

WOULD_BLOCK = -1
"""``TLSSession.read``: nothing to read until more ciphertext is fed."""
CLOSE_NOTIFY = 0
"""``TLSSession.read``: the peer finished its direction properly."""


class Buffer:
    """Memory that OpenSSL and the socket calls share without copying."""

    __slots__ = ("pointer", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = _ffi.new("char[]", size)
        self.view = memoryview(_ffi.buffer(self.pointer))


def certificates_from_pem(text: str) -> list[x509.Certificate]:
    """Parse every certificate in ``text``.

    :raises MaterialError: when there is none, or one does not parse.
    """
    if _PEM_MARK not in text:
        raise MaterialError("holds no PEM certificate (no BEGIN CERTIFICATE line)")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise MaterialError(f"holds a certificate that does not parse: {error}") from error


def _trust(context: SSL.Context, roots: list[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    _lib.ERR_clear_error()  # a root listed twice is reported there, and is no error


def _present(context: SSL.Context, chain_pem: str, key_pem: str, what: str) -> None:
    try:
        chain = certificates_from_pem(chain_pem)
        key = load_pem_private_key(key_pem.encode(), None)
        context.use_certificate(chain[0])
        for intermediate in chain[1:]:
            context.add_extra_chain_cert(intermediate)
        context.use_privatekey(key)  # type: ignore[arg-type]
        context.check_privatekey()
    except (MaterialError, ValueError, TypeError, SSL.Error) as error:
        _lib.ERR_clear_error()
        raise MaterialError(f"{what} cannot be used: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return "; ".join(str(entry[-1]) for entry in error.args[0])
    return str(error) or type(error).__name__


def _restrict(context: SSL.Context, minimum: str, maximum: str, cipher_suites: tuple[str, ...]) -> None:
    try:
        context.set_min_proto_version(_VERSIONS[minimum])
        context.set_max_proto_version(_VERSIONS[maximum])
    except KeyError as error:
        raise MaterialError(f"TLS version {error} is not one of {', '.join(_VERSIONS)}") from None
    ciphers = ":".join(cipher_suites) or _CIPHERS
    if minimum in ("TLSv1_0", "TLSv1_1"):
        ciphers += ":ECDHE+AES:@SECLEVEL=0"  # OpenSSL allows these versions at security level 0 only
    try:
        context.set_cipher_list(ciphers.encode())
    except SSL.Error as error:
        _lib.ERR_clear_error()
        raise MaterialError(f"the cipher suites {ciphers} cannot be used: {_explain(error)}") from error


def _base_context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    # One send() takes everything; with partial writes it takes one record and silently leaves the rest.
    context.clear_mode(_lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
    # An idle connection gives its record buffers back: 34 KiB each. And the chain to send is the one that Consul gave:
    # left alone, OpenSSL would look for one in the trust store, and verify a signature for it, in every handshake.
    context.set_mode(_lib.SSL_MODE_RELEASE_BUFFERS | _SSL_MODE_NO_AUTO_CHAIN)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | _lib.SSL_OP_NO_RENEGOTIATION)
    _lib.SSL_CTX_set1_curves_list(context._context, _GROUPS)
    context.set_tls13_ciphersuites(_SUITES_TLS13)
    return context


class ServiceContext:
    """What one linked service presents and trusts; chosen by server name during the handshake."""

    def __init__(self, leaf: Leaf, roots_pem: tuple[str, ...]) -> None:
        """:raises MaterialError: when the leaf or the roots cannot be used."""
        self.context = _base_context(SSL.TLS_SERVER_METHOD)
        _present(self.context, leaf.certificate_chain_pem, leaf.private_key_pem, f"the leaf {leaf.spiffe_id}")
        for root in roots_pem:
            _trust(self.context, certificates_from_pem(root))


class FrontContext:
    """The context on which every client starts, before its server name is known. It has no certificate."""

    def __init__(
        self,
        mesh: Mesh,
        select: Callable[[str], ServiceContext | None],
        object_to: Callable[[str, tuple[str, ...]], str],
    ) -> None:
        """``select`` gets a lower-case server name and returns what to serve on it. ``object_to`` gets that name and
        the URI SANs of a certificate whose chain is good; what it answers, if anything, is why the client is refused.

        :raises MaterialError: when the mesh's TLS settings cannot be used.
        """
        self.context = _base_context(SSL.TLS_SERVER_METHOD)
        self.context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        _restrict(self.context, mesh.tls_min_version, mesh.tls_max_version, mesh.cipher_suites)
        self._select = select
        self._object_to = object_to
        self._handshaking: ServerSession | None = None
        # Should a callback raise, OpenSSL gets the answer that refuses.
        self._callbacks = (
            _ffi.callback("int (*)(SSL *, int *, void *)", self._on_server_name, error=2),
            _ffi.callback("int (*)(int, X509_STORE_CTX *)", self._on_verify, error=0),
        )
        _lib.SSL_CTX_set_tlsext_servername_callback(self.context._context, self._callbacks[0])
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        _lib.SSL_CTX_set_verify(self.context._context, mode, self._callbacks[1])

    def accept(self) -> ServerSession:
        return ServerSession(self)

    def _on_server_name(self, ssl: Any, alert: Any, _argument: Any) -> int:
        session = self._handshaking
        raw = _lib.SSL_get_servername(ssl, _lib.TLSEXT_NAMETYPE_host_name)
        alert[0] = _ALERT_UNRECOGNIZED_NAME
        if session is None or raw == _ffi.NULL:
            return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        session.server_name = _ffi.string(raw).decode("ascii", "backslashreplace").lower()
        chosen = self._select(session.server_name)
        if chosen is None:
            return int(_lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        session.chosen = chosen
        _lib.SSL_set_SSL_CTX(ssl, chosen.context._context)
        return 0

    def _on_verify(self, good: int, store: Any) -> int:
        """After OpenSSL's own verdict on each certificate: is the leaf's identity one that may call at all?

        Inside the handshake, so that a client that may not is told by an alert.
        """
        session = self._handshaking
        if not good or session is None:
            return 0
        if _lib.X509_STORE_CTX_get_error_depth(store) > 0:
            return 1
        try:
            session.uris = _uris(_der(_lib.X509_STORE_CTX_get_current_cert(store)))
            session.objection = self._object_to(session.server_name, session.uris)
        except ValueError as error:
            session.objection = f"the certificate's names cannot be read: {error}"
        if session.objection:
            _lib.X509_STORE_CTX_set_error(store, _lib.X509_V_ERR_APPLICATION_VERIFICATION)
            return 0
        return 1


class TLSSession:
    """One session, either side. Ciphertext goes in with :meth:`feed` and waits in :meth:`outgoing`."""

    __slots__ = ("_borrowed", "_context", "_incoming", "_outgoing", "_pointer", "_ssl")

    def __init__(self, context: SSL.Context) -> None:
        self._context = context
        self._ssl = _ffi.gc(_lib.SSL_new(context._context), _lib.SSL_free)
        self._incoming = _lib.BIO_new(_lib.BIO_s_mem())
        self._outgoing = _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)  # SSL_free frees them
        self._pointer = _ffi.new("char **")
        self._borrowed = False

    def feed(self, ciphertext: Buffer, length: int) -> None:
        """Give it ciphertext, by copying."""
        if self._borrowed:
            self.keep()
        _lib.BIO_write(self._incoming, ciphertext.pointer, length)

    def lend(self, ciphertext: Buffer, length: int) -> None:
        """Give it ciphertext without copying, where that pays.

        The buffer must not change before :meth:`read` has answered ``WOULD_BLOCK``, or :meth:`keep` was called.
        """
        if length < _WORTH_LENDING or _lib.BIO_get_mem_data(self._incoming, self._pointer) > 0:
            self.feed(ciphertext, length)
            return
        self._replace_incoming(_lib.BIO_new_mem_buf(ciphertext.pointer, length))
        _lib.BIO_set_mem_eof_return(self._incoming, -1)  # empty means "not yet", never "the end"
        self._borrowed = True

    def keep(self) -> None:
        """Copy what was lent and is not read yet."""
        if not self._borrowed:
            return
        unread = _lib.BIO_get_mem_data(self._incoming, self._pointer)
        own = _lib.BIO_new(_lib.BIO_s_mem())
        if unread > 0:
            _lib.BIO_write(own, self._pointer[0], unread)
        self._replace_incoming(own)
        self._borrowed = False

    def _replace_incoming(self, bio: Any) -> None:
        # The former one is freed; the outgoing one is the same, and OpenSSL leaves it as it is.
        self._incoming = bio
        _lib.SSL_set_bio(self._ssl, bio, self._outgoing)

    def outgoing(self) -> memoryview | None:
        """Ciphertext to be sent, valid until the next call; ``None`` when there is none."""
        length = _lib.BIO_get_mem_data(self._outgoing, self._pointer)
        if length <= 0:
            return None
        return memoryview(_ffi.buffer(self._pointer[0], length))

    def sent(self, length: int, scratch: Buffer) -> None:
        """Forget ``length`` bytes of :meth:`outgoing`. ``scratch`` is overwritten."""
        while length > 0:
            taken = _lib.BIO_read(self._outgoing, scratch.pointer, min(length, scratch.size))
            if taken <= 0:
                raise AssertionError("more bytes were sent than there were")
            length -= taken

    def read(self, plaintext: Buffer, offset: int) -> int:
        """Decrypt one record into ``plaintext`` at ``offset``; its size, ``WOULD_BLOCK`` or ``CLOSE_NOTIFY``."""
        length: int = _lib.SSL_read(self._ssl, plaintext.pointer + offset, plaintext.size - offset)
        if length > 0:
            return length
        return self._no_progress(length)

    def write(self, plaintext: Buffer, length: int) -> None:
        """Encrypt all of it; the ciphertext waits in :meth:`outgoing`."""
        written = _lib.SSL_write(self._ssl, plaintext.pointer, length)
        if written != length:
            self._no_progress(written)
            raise self._failure("the session does not take data")

    def close_notify(self) -> None:
        """Finish our direction. The ciphertext waits in :meth:`outgoing`."""
        if _lib.SSL_shutdown(self._ssl) < 0:
            _lib.ERR_clear_error()

    def version(self) -> str:
        """``TLSv1.2``, ``TLSv1.3``."""
        text: str = _ffi.string(_lib.SSL_get_version(self._ssl)).decode()
        return text

    def has_peer_certificate(self) -> bool:
        raw = _lib.SSL_get_peer_certificate(self._ssl)
        if raw == _ffi.NULL:
            return False
        _lib.X509_free(raw)
        return True

    def peer_der(self) -> bytes:
        """The peer's certificate; empty when it has none."""
        raw = _lib.SSL_get_peer_certificate(self._ssl)
        if raw == _ffi.NULL:
            return b""
        try:
            return _der(raw)
        finally:
            _lib.X509_free(raw)

    def _no_progress(self, result: int) -> int:
        error = _lib.SSL_get_error(self._ssl, result)
        if error in (_lib.SSL_ERROR_WANT_READ, _lib.SSL_ERROR_WANT_WRITE):
            return WOULD_BLOCK
        if error == _lib.SSL_ERROR_ZERO_RETURN:
            return CLOSE_NOTIFY
        raise self._failure(_drain_errors() or "the peer broke the TLS protocol")

    def _failure(self, detail: str) -> Exception:
        raise NotImplementedError

    def _verify_error(self) -> str:
        code = _lib.SSL_get_verify_result(self._ssl)
        if code == 0:
            return ""
        text: str = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
        return text


def _der(certificate: Any) -> bytes:
    memory = _lib.BIO_new(_lib.BIO_s_mem())
    pointer = _ffi.new("char **")
    try:
        _lib.i2d_X509_bio(memory, certificate)
        length = _lib.BIO_get_mem_data(memory, pointer)
        return bytes(_ffi.buffer(pointer[0], length))
    finally:
        _lib.BIO_free(memory)


def _drain_errors() -> str:
    """OpenSSL's error queue as text, oldest first, and leave it empty for the next call on this thread."""
    reasons = []
    while code := _lib.ERR_get_error():
        text = _lib.ERR_reason_error_string(code)
        reasons.append(_ffi.string(text).decode() if text != _ffi.NULL else f"error {code:#x}")
    return "; ".join(dict.fromkeys(reasons))


_NOT_TLS = ("http request", "https proxy request", "wrong version number", "packet length too long")


class ServerSession(TLSSession):
    """The mesh's side of a connection."""

    __slots__ = ("_front", "chosen", "objection", "server_name", "uris")

    def __init__(self, front: FrontContext) -> None:
        super().__init__(front.context)
        _lib.SSL_set_accept_state(self._ssl)
        self._front = front
        self.server_name = ""
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
            result = _lib.SSL_do_handshake(self._ssl)
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
        if self.uris is None or not self.has_peer_certificate() or _lib.SSL_get_verify_result(self._ssl) != 0:
            raise PeerError(CloseReason.NO_CERTIFICATE, "the client has no verified certificate")
        return self.uris

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


@functools.lru_cache(maxsize=4_096)
def _uris(der: bytes) -> tuple[str, ...]:
    """The URI SANs of a certificate. Remembered: a caller comes back with the same one until its leaf is renewed.

    :raises ValueError: when the certificate or its names do not parse.
    """
    try:
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier))


class UpstreamContext:
    """The second TLS session's settings, for one linked service."""

    def __init__(self, settings: UpstreamTLS) -> None:
        """:raises MaterialError: when the CA, the certificate or the key cannot be used."""
        self.context = _base_context(SSL.TLS_CLIENT_METHOD)
        self.context.set_verify(SSL.VERIFY_PEER)
        self.context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.server_name = settings.server_name
        try:
            _trust(self.context, certificates_from_pem(settings.ca_pem))
        except MaterialError as error:
            raise MaterialError(f"CAFile {error}") from error
        if settings.certificate_chain_pem:
            _present(
                self.context,
                settings.certificate_chain_pem,
                settings.private_key_pem,
                "the client certificate (CertFile, KeyFile)",
            )

    def connect(self) -> UpstreamSession:
        return UpstreamSession(self)


class UpstreamSession(TLSSession):
    """The external service's side of a connection."""

    __slots__ = ("_expected_name",)

    def __init__(self, upstream: UpstreamContext) -> None:
        super().__init__(upstream.context)
        _lib.SSL_set_connect_state(self._ssl)
        self._expected_name = upstream.server_name
        if self._expected_name and not is_ip_address(self._expected_name):  # RFC 6066 section 3: no literals
            _lib.SSL_set_tlsext_host_name(self._ssl, self._expected_name.encode())

    def handshake(self) -> bool:
        """Go on as far as the bytes reach; true when done and the server's name was checked.

        :raises UpstreamError: when the server is not the one that the link describes.
        """
        result = _lib.SSL_do_handshake(self._ssl)
        if result != 1:
            if self._no_progress(result) == CLOSE_NOTIFY:
                raise self._failure("the external service closed during the handshake")
            return False
        der = self.peer_der()
        if not der or _lib.SSL_get_verify_result(self._ssl) != 0:
            raise self._failure("the external service has no verified certificate")
        if self._expected_name:
            check_name(x509.load_der_x509_certificate(der), self._expected_name)
        return True

    def _failure(self, detail: str) -> UpstreamError:
        if verify_error := self._verify_error():
            detail = f"the certificate of the external service is not trusted by CAFile: {verify_error}"
        return UpstreamError(CloseReason.UPSTREAM_TLS_FAILED, detail)
