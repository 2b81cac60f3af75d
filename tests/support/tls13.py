"""TLS 1.3 records made by hand (RFC 8446 sections 4.6.3, 5.2 and 7), for what no library would send."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

_DEADLINE_S = 20.0
_HANDSHAKE, _DATA = 22, 23
_KEY_UPDATE = 24
_CIPHERS: dict[str, tuple[hashes.HashAlgorithm, int]] = {
    "TLS_AES_128_GCM_SHA256": (hashes.SHA256(), 16),
    "TLS_AES_256_GCM_SHA384": (hashes.SHA384(), 32),
}


class Writer:
    """Makes the records of one direction, from its traffic secret."""

    def __init__(self, secret: bytes, cipher: str) -> None:
        self._hash, self._key_size = _CIPHERS[cipher]
        self._use(secret)

    def record(self, content: bytes, kind: int = _DATA) -> bytes:
        """One record with ``content``, which may be empty."""
        inner = content + bytes([kind])
        header = struct.pack(">BHH", _DATA, 0x0303, len(inner) + 16)
        nonce = (int.from_bytes(self._iv, "big") ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._cipher.encrypt(nonce, inner, header)

    def key_update(self, *, answer: bool = True) -> bytes:
        """A KeyUpdate that asks for one in return, or not; later records are made with the next keys."""
        record = self.record(struct.pack(">BBHB", _KEY_UPDATE, 0, 1, int(answer)), _HANDSHAKE)
        self._use(self._expand(self._secret, b"traffic upd", self._hash.digest_size))
        return record

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._expand(secret, b"key", self._key_size))
        self._iv = self._expand(secret, b"iv", 12)
        self._number = 0

    def _expand(self, secret: bytes, label: bytes, length: int) -> bytes:
        name = b"tls13 " + label
        info = struct.pack(">HB", length, len(name)) + name + b"\0"
        return HKDFExpand(self._hash, length, info).derive(secret)


class TLS13Client:
    """A session whose outgoing records are the caller's to make. Blocking; every call has a deadline of 20 s."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, server_name: str) -> None:
        """``context`` is changed: it must be the caller's own."""
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
        with tempfile.NamedTemporaryFile() as secrets:
            context.keylog_filename = secrets.name
            self.socket = socket.create_connection(address, _DEADLINE_S)
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
            self._shake_hands()
            secret = _client_secret(Path(secrets.name).read_text())
        agreed = self._session.cipher()
        assert agreed is not None
        self.writer = Writer(secret, agreed[0])

    def _shake_hands(self) -> None:
        while True:
            try:
                self._session.do_handshake()
            except ssl.SSLWantReadError:
                self.socket.sendall(self._outgoing.read())
                self._incoming.write(self.socket.recv(65_536))
            else:
                self.socket.sendall(self._outgoing.read())
                return

    def exchange(self, data: bytes) -> bytes:
        """Send one record with ``data`` and receive as many bytes."""
        self.socket.sendall(self.writer.record(data))
        received = b""
        while len(received) < len(data):
            with contextlib.suppress(ssl.SSLWantReadError):
                received += self._session.read(65_536)
                continue
            ciphertext = self.socket.recv(65_536)
            if not ciphertext:
                raise ConnectionResetError("the session ended")
            self._incoming.write(ciphertext)
        return received

    def close(self) -> None:
        self.socket.close()


def _client_secret(key_log: str) -> bytes:
    """The secret of the client's first application keys, from the format of SSLKEYLOGFILE (RFC 9850)."""
    for line in key_log.splitlines():
        label, *_, secret = line.split()
        if label == "CLIENT_TRAFFIC_SECRET_0":
            return bytes.fromhex(secret)
    raise AssertionError("the session logged no application secret")
