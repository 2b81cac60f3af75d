"""TLS settings as OpenSSL contexts: what the gateway shows to clients and to external services, and whom it trusts.

Contexts are made off the hot path and replaced as a whole. Keys come as PEM text and stay in memory.

Session resumption is off on the front context, without exception: a session made under one service's trust would be
accepted under another's, and after its root was removed, because resumption verifies no certificate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from cryptography import x509
from OpenSSL import SSL, crypto

from proxy.errors import MaterialError
from proxy.model import Leaf, Mesh, UpstreamTLS
from proxy.tls.client_trust import GOOD, ClientTrust
from proxy.tls.material import certificates_from_pem, explain, present, trust
from proxy.tls.openssl import der_of, ffi, lib
from proxy.tls.session import ServerSession, UpstreamSession
from proxy.tls.unreadable import UNREADABLE

_SSL_MODE_NO_AUTO_CHAIN = 0x8  # openssl/ssl.h; the binding does not name it
_ALERT_UNRECOGNIZED_NAME = 112  # RFC 6066 section 3
_ALPN_WITHOUT_ANSWER = 3  # SSL_TLSEXT_ERR_NOACK, openssl/tls1.h
_SELECT_ALPN = "int (*)(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)"
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
_NO_ANCHOR = frozenset(
    (
        lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT,
        lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        lib.X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        lib.X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        lib.X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
    )
)
"""What OpenSSL finds wrong with a chain that ends in nothing it trusts."""


_ISSUES = "the certificate may issue others (CA, keyCertSign or cRLSign): it is an authority's, and no service's"


def _restrict(context: SSL.Context, minimum: str, maximum: str, cipher_suites: tuple[str, ...]) -> None:
    try:
        context.set_min_proto_version(_VERSIONS[minimum])
        context.set_max_proto_version(_VERSIONS[maximum])
    except KeyError as unknown:
        raise MaterialError(f"TLS version {unknown} is not one of {', '.join(_VERSIONS)}") from None
    ciphers = ":".join(cipher_suites) or _CIPHERS
    if minimum in ("TLSv1_0", "TLSv1_1"):
        ciphers += ":ECDHE+AES:@SECLEVEL=0"  # OpenSSL allows these versions at security level 0 only
    try:
        context.set_cipher_list(ciphers.encode())
    except SSL.Error as error:
        lib.ERR_clear_error()
        raise MaterialError(f"the cipher suites {ciphers} cannot be used: {explain(error)}") from error


def _base_context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    # One send() takes everything; with partial writes it takes one record and silently leaves the rest.
    context.clear_mode(lib.SSL_MODE_ENABLE_PARTIAL_WRITE)
    # An idle connection gives its record buffers back: 34 KiB each. And the chain to send is the one that Consul gave:
    # left alone, OpenSSL would look for one in the trust store, and verify a signature for it, in every handshake.
    context.set_mode(lib.SSL_MODE_RELEASE_BUFFERS | _SSL_MODE_NO_AUTO_CHAIN)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | lib.SSL_OP_NO_RENEGOTIATION)
    lib.SSL_CTX_set1_curves_list(context._context, _GROUPS)
    context.set_tls13_ciphersuites(_SUITES_TLS13)
    return context


class ServiceContext:
    """What one linked service presents and trusts; chosen by server name during the handshake."""

    def __init__(
        self, leaf: Leaf, client_trust: ClientTrust, mesh: Mesh | None = None, *, alpn: tuple[bytes, ...] = ()
    ) -> None:
        """``mesh`` restricts what TLS is spoken, as on the front context: a session takes its ciphers from here.

        :param alpn: the protocols that the service speaks, the preferred one first. A client that offers none of them
            is served all the same: without an answer, as if there were no ALPN (RFC 7301 section 3.1).
        :raises MaterialError: when the leaf or the mesh's TLS settings cannot be used.
        """
        self.client_trust = client_trust
        self.context = _base_context(SSL.TLS_SERVER_METHOD)
        if mesh is not None:
            _restrict(self.context, mesh.tls_min_version, mesh.tls_max_version, mesh.cipher_suites)
        present(self.context, leaf.certificate_chain_pem, leaf.private_key_pem, f"the leaf {leaf.spiffe_id}")
        self._alpn = alpn
        self._callback = ffi.callback(_SELECT_ALPN, self._select_protocol, error=_ALPN_WITHOUT_ANSWER)
        if alpn:
            lib.SSL_CTX_set_alpn_select_cb(self.context._context, self._callback, ffi.NULL)

    def _select_protocol(self, _ssl: Any, out: Any, out_length: Any, offered: Any, length: int, _argument: Any) -> int:
        places = dict(_names_in(bytes(ffi.buffer(offered, length))))
        for name in self._alpn:
            if name in places:
                out[0] = offered + places[name]
                out_length[0] = len(name)
                return 0
        return _ALPN_WITHOUT_ANSWER


def _names_in(offered: bytes) -> Iterator[tuple[bytes, int]]:
    """The names of a list of protocols (RFC 7301 section 3.1, checked by OpenSSL), and where each begins."""
    place = 0
    while place < len(offered):
        end = place + 1 + offered[place]
        yield offered[place + 1 : end], place + 1
        place = end


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
            ffi.callback("int (*)(SSL *, int *, void *)", self._on_server_name, error=2),
            ffi.callback("int (*)(int, X509_STORE_CTX *)", self._on_verify, error=0),
        )
        lib.SSL_CTX_set_tlsext_servername_callback(self.context._context, self._callbacks[0])
        mode = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        lib.SSL_CTX_set_verify(self.context._context, mode, self._callbacks[1])

    def accept(self) -> ServerSession:
        return ServerSession(self)

    def _on_server_name(self, ssl: Any, alert: Any, _argument: Any) -> int:
        session = self._handshaking
        raw = lib.SSL_get_servername(ssl, lib.TLSEXT_NAMETYPE_host_name)
        alert[0] = _ALERT_UNRECOGNIZED_NAME
        if session is None or raw == ffi.NULL:
            return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        session.server_name = ffi.string(raw).decode("ascii", "backslashreplace").lower()
        chosen = self._select(session.server_name)
        if chosen is None:
            return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)
        session.chosen = chosen
        lib.SSL_set_SSL_CTX(ssl, chosen.context._context)
        return 0

    def _on_verify(self, good: int, store: Any) -> int:
        """OpenSSL's verdict on each certificate, and ours.

        The contexts trust nothing, so that OpenSSL comes here before it verifies a signature: whether there is a root
        behind the chain is for :class:`ClientTrust` to say. The leaf's identity is looked at here, too, inside the
        handshake, so that a client that may not call is told by an alert.
        """
        session = self._handshaking
        if session is None or session.chosen is None:
            return 0
        if not good:
            # By what is trusted now: a root that was taken back while the client kept its certificate to itself vouches
            # for nobody.
            current = self._select(session.server_name)
            return 0 if current is None else self._vouch(session, current.client_trust, store)
        if lib.X509_STORE_CTX_get_error_depth(store) > 0:
            return 1
        if session.vouched_by is None:
            return 0
        try:
            session.uris, issues = _uris(session.leaf_der)
            session.objection = _ISSUES if issues else self._object_to(session.server_name, session.uris)
        except UNREADABLE as error:
            session.objection = f"the certificate's names cannot be read: {error}"
        if session.objection:
            lib.X509_STORE_CTX_set_error(store, lib.X509_V_ERR_APPLICATION_VERIFICATION)
            return 0
        return 1

    @staticmethod
    def _vouch(session: ServerSession, client_trust: ClientTrust, store: Any) -> int:
        if lib.X509_STORE_CTX_get_error(store) not in _NO_ANCHOR:
            return 0
        if session.vouched_by is None:
            leaf = lib.X509_STORE_CTX_get0_cert(store)
            session.leaf_der = der_of(leaf)
            verdict = client_trust.verdict(leaf, session.leaf_der, store)
            if verdict != GOOD:
                lib.X509_STORE_CTX_set_error(store, verdict)
                return 0
            session.vouched_by = client_trust
        lib.X509_STORE_CTX_set_error(store, GOOD)
        return 1


@functools.lru_cache(maxsize=4_096)
def _uris(der: bytes) -> tuple[tuple[str, ...], bool]:
    """The URI SANs of a certificate, and whether it may issue others.

    Remembered: a caller comes back with the same one until its leaf is renewed.

    :raises ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType: when they cannot be read.
    """
    certificate = x509.load_der_x509_certificate(der)
    certificate.subject  # noqa: B018 - read when asked for, and services are told it: it must be readable, too
    extensions = certificate.extensions
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return (), _may_issue(extensions)
    return tuple(names.value.get_values_for_type(x509.UniformResourceIdentifier)), _may_issue(extensions)


def _may_issue(extensions: x509.Extensions) -> bool:
    """Section 4.1 and 4.3 of the X509-SVID specification: a leaf is no CA and signs neither certificates nor CRLs."""
    values = [extension.value for extension in extensions]
    return any(isinstance(value, x509.BasicConstraints) and value.ca for value in values) or any(
        isinstance(value, x509.KeyUsage) and (value.key_cert_sign or value.crl_sign) for value in values
    )


def _store_of(context: SSL.Context) -> crypto.X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


class UpstreamContext:
    """The second TLS session's settings, for one linked service."""

    def __init__(self, settings: UpstreamTLS, *, alpn: bytes = b"") -> None:
        """:param alpn: the one protocol that is offered; empty: none is.
        :raises MaterialError: when the CA, the certificate or the key cannot be used.
        """
        self.context = _base_context(SSL.TLS_CLIENT_METHOD)
        self.context.set_verify(SSL.VERIFY_PEER)
        self.context.set_min_proto_version(SSL.TLS1_2_VERSION)
        if alpn:
            self.context.set_alpn_protos([alpn])
        self.server_name = settings.server_name
        self._handshaking: UpstreamSession | None = None
        self._callback = ffi.callback("int (*)(SSL *, void *)", self._on_certificate_wanted, error=0)
        store = _store_of(self.context)
        # What the operator put into the CAFile is trusted as it is: an issuing authority without its root, or the
        # server's own certificate.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        try:
            trust(store, certificates_from_pem(settings.ca_pem))
        except MaterialError as error:
            raise MaterialError(f"CAFile {error}") from error
        if settings.certificate_chain_pem:
            present(
                self.context,
                settings.certificate_chain_pem,
                settings.private_key_pem,
                "the client certificate (CertFile, KeyFile)",
            )
        else:
            lib.SSL_CTX_set_cert_cb(self.context._context, self._callback, ffi.NULL)

    def connect(self) -> UpstreamSession:
        return UpstreamSession(self)

    def _on_certificate_wanted(self, _ssl: Any, _argument: Any) -> int:
        """Go on without a certificate: whether it is a condition is for the server to say."""
        if self._handshaking is not None:
            self._handshaking.certificate_missing = True
        return 1
