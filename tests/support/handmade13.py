"""A TLS 1.3 handshake made by hand, message by message (RFC 8446 sections 2, 4 and 7): what no library would send.

X25519, TLS_AES_128_GCM_SHA256 and keys of P-256 only. It verifies nothing that the gateway says.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Sequence

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support.crafted import Key
from tests.support.tls13 import Writer

CLIENT_HELLO, SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE = 1, 2, 8, 11
CERTIFICATE_REQUEST, CERTIFICATE_VERIFY, FINISHED, COMPRESSED_CERTIFICATE = 13, 15, 20, 25
SERVER_NAME, ALPN, COMPRESS_CERTIFICATE, POST_HANDSHAKE_AUTH = 0, 16, 27, 49
_ALERT, _HANDSHAKE, _DATA = 21, 22, 23
_SUITE, _SUITE_NAME = 0x1301, "TLS_AES_128_GCM_SHA256"
_X25519, _ECDSA_P256 = 0x001D, 0x0403
_DEADLINE_S = 20.0
_SIZE = 32
_ZEROS = bytes(_SIZE)

Extension = tuple[int, bytes]


class Refused(Exception):
    """The gateway sent an alert, or closed. ``alert`` is its number (RFC 8446 section 6), -1 without one."""

    def __init__(self, alert: int) -> None:
        super().__init__(f"alert {alert}")
        self.alert = alert


class Reader(Writer):
    """Opens the records of one direction."""

    def opened(self, header: bytes, body: bytes) -> tuple[int, bytes]:
        """Kind and content."""
        nonce = (int.from_bytes(self._iv, "big") ^ self._number).to_bytes(12, "big")
        self._number += 1
        inner = self._cipher.decrypt(nonce, body, header).rstrip(b"\0")
        return inner[-1], inner[:-1]


def vector(content: bytes, size: int = 2) -> bytes:
    """``content`` behind its length in ``size`` bytes."""
    return len(content).to_bytes(size, "big") + content


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """RFC 6066 section 3; several names are against it."""
    return SERVER_NAME, vector(b"".join(bytes([kind]) + vector(name) for name in names))


def alpn(*protocols: bytes) -> Extension:
    """RFC 7301 section 3.1."""
    return ALPN, vector(b"".join(vector(one, 1) for one in protocols))


class HandmadeClient:
    """Blocking; every call has a deadline of 20 seconds."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _DEADLINE_S)
        self.heard: dict[int, bytes] = {}
        """Bodies of the gateway's handshake messages, by type."""
        self._key = X25519PrivateKey.generate()
        self._transcript = b""
        self._waiting = b""
        self._reader: Reader | None = None
        self._writer: Writer | None = None
        self._client_handshake = self._client_data = b""

    def close(self) -> None:
        self.socket.close()

    def hello(self, *extensions: Extension) -> None:
        """Send ClientHello with ``extensions`` beside those that a handshake needs; read the gateway's flight.

        :raises Refused: when it sends an alert instead."""
        public = self._key.public_key().public_bytes_raw()
        offered: Sequence[Extension] = (
            (43, vector(b"\x03\x04", 1)),  # supported_versions
            (10, vector(struct.pack(">H", _X25519))),  # supported_groups
            (13, vector(struct.pack(">HH", _ECDSA_P256, 0x0804))),  # signature_algorithms
            (51, vector(struct.pack(">H", _X25519) + vector(public))),  # key_share
            *extensions,
        )
        body = b"\x03\x03" + os.urandom(32) + vector(b"", 1) + vector(struct.pack(">H", _SUITE)) + b"\x01\x00"
        body += vector(b"".join(struct.pack(">H", kind) + vector(content) for kind, content in offered))
        message = self._noted(CLIENT_HELLO, body)
        for at in range(0, len(message), 16_384):
            piece = message[at : at + 16_384]
            self.socket.sendall(struct.pack(">BH", _HANDSHAKE, 0x0301) + vector(piece))
        self._read_flight()

    def certificate(self, *chain_der: bytes, context: bytes = b"") -> None:
        entries = b"".join(vector(one, 3) + vector(b"") for one in chain_der)
        self.say(CERTIFICATE, vector(context, 1) + vector(entries, 3))

    def verify(self, key: Key, *, role: bytes = b"client", transcript: bytes | None = None) -> bytes:
        """CertificateVerify (section 4.4.3). Returns its body."""
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        digest = _hash(self._transcript if transcript is None else transcript)
        signed = b" " * 64 + b"TLS 1.3, " + role + b" CertificateVerify\0" + digest
        body = struct.pack(">H", _ECDSA_P256) + vector(key.sign(signed, ec.ECDSA(hashes.SHA256())))
        self.say(CERTIFICATE_VERIFY, body)
        return body

    def finished(self, *, wrong: bool = False) -> None:
        key = _expand(self._client_handshake, b"finished", b"", _SIZE)
        told = hmac.digest(key, _hash(self._transcript), "sha256")
        self.say(FINISHED, bytes(_SIZE) if wrong else told)
        self._writer = Writer(self._client_data, _SUITE_NAME)

    def say(self, kind: int, body: bytes) -> None:
        """Send one handshake message, in as many records as it takes."""
        assert self._writer is not None
        message = self._noted(kind, body)
        for at in range(0, len(message), 16_384):
            self.socket.sendall(self._writer.record(message[at : at + 16_384], _HANDSHAKE))

    def exchange(self, data: bytes) -> bytes:
        """Send data and read what comes back. :raises Refused: instead."""
        assert self._writer is not None
        self._send(self._writer.record(data))
        return self.receive()

    def receive(self) -> bytes:
        """Some data. :raises Refused: when the gateway sends an alert or ends."""
        while True:
            kind, content = self._record()
            if kind == _DATA:
                return content

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except ConnectionError:
            pass  # what was said before it closed is still to be read

    def _noted(self, kind: int, body: bytes) -> bytes:
        message = bytes([kind]) + vector(body, 3)
        self._transcript += message
        return message

    def _read_flight(self) -> None:
        hello = self._message()
        share = hello[hello.index(struct.pack(">HHHH", 51, 36, _X25519, 32)) + 8 :][:_SIZE]
        shared = self._key.exchange(X25519PublicKey.from_public_bytes(share))
        early = _extract(b"", _ZEROS)
        secret = _extract(_expand(early, b"derived", _hash(b""), _SIZE), shared)
        so_far = _hash(self._transcript)
        self._client_handshake = _expand(secret, b"c hs traffic", so_far, _SIZE)
        self._reader = Reader(_expand(secret, b"s hs traffic", so_far, _SIZE), _SUITE_NAME)
        self._writer = Writer(self._client_handshake, _SUITE_NAME)
        while FINISHED not in self.heard:
            self._message()
        master = _extract(_expand(secret, b"derived", _hash(b""), _SIZE), _ZEROS)
        so_far = _hash(self._transcript)
        self._client_data = _expand(master, b"c ap traffic", so_far, _SIZE)
        self._reader = Reader(_expand(master, b"s ap traffic", so_far, _SIZE), _SUITE_NAME)

    def _message(self) -> bytes:
        while len(self._waiting) < 4 or len(self._waiting) < 4 + int.from_bytes(self._waiting[1:4], "big"):
            kind, content = self._record()
            self._waiting += content if kind == _HANDSHAKE else b""
        kind, length = self._waiting[0], int.from_bytes(self._waiting[1:4], "big")
        body, self._waiting = self._waiting[4 : 4 + length], self._waiting[4 + length :]
        self._noted(kind, body)
        self.heard[kind] = body
        return body

    def _record(self) -> tuple[int, bytes]:
        header = self._exactly(5)
        kind, body = header[0], self._exactly(int.from_bytes(header[3:], "big"))
        if kind == _DATA and self._reader is not None:
            kind, body = self._reader.opened(header, body)
        if kind == _ALERT:
            raise Refused(body[1])
        return kind, body

    def _exactly(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            try:
                part = self.socket.recv(length - len(data))
            except ConnectionError:
                part = b""
            if not part:
                raise Refused(-1)
            data += part
        return data


def der_of(chain_pem: str) -> list[bytes]:
    from cryptography import x509

    return [one.public_bytes(serialization.Encoding.DER) for one in x509.load_pem_x509_certificates(chain_pem.encode())]


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or _ZEROS, secret, "sha256")


def _expand(secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label, section 7.1."""
    info = struct.pack(">H", length) + vector(b"tls13 " + label, 1) + vector(context, 1)
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)
