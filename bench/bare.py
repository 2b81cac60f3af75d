"""``python -m bench.bare``: what a gateway has to do at least, done alone, for the limits beside the figures.

``relay PORT`` carries one connection to a loopback port without TLS. ``crypto`` prints how fast the library does what
TLS needs, as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL, crypto

from plugin.dev.pki import Authority, KeyPair

RECORD = 16 * 1024
_BLOCK = 256 * 1024
_ROUND_S = 0.4
_HANDSHAKES = 300


def relay(port: int) -> None:
    """Print where it listens, then carry both directions of one connection until they end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        client, _ = listener.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as service:
        back = threading.Thread(target=_copy, args=(client, service), daemon=True)
        back.start()
        _copy(service, client)


def _copy(source: socket.socket, target: socket.socket) -> None:
    block = bytearray(_BLOCK)
    view = memoryview(block)
    try:
        while length := source.recv_into(block):
            target.sendall(view[:length])
    except OSError:
        # The other side has gone: all there was to measure is over.
        return


def rates() -> dict[str, float]:
    """By the key of the measure; bytes, or operations, per CPU second of this process."""
    aead, nonce, record = AESGCM(AESGCM.generate_key(128)), bytes(12), bytes(RECORD)
    key = ec.generate_private_key(ec.SECP256R1())
    algorithm = ec.ECDSA(hashes.SHA256())
    message = bytes(98)
    signature, public = key.sign(message, algorithm), key.public_key()
    peer = X25519PrivateKey.generate().public_key()
    return {
        "limit-aes": RECORD * _rate(lambda: aead.encrypt(nonce, record, None)),
        "limit-sign": _rate(lambda: key.sign(message, algorithm)),
        "limit-verify": _rate(lambda: public.verify(signature, message, algorithm)),
        "limit-x25519": _rate(lambda: X25519PrivateKey.generate().exchange(peer)),
        "limit-handshake": _handshakes_per_cpu_s(),
    }


def _handshakes_per_cpu_s() -> float:
    """Full handshakes of mutual TLS in memory, for each CPU second of the server's side."""
    authority = Authority("limits")
    server = _context(SSL.TLS_SERVER_METHOD, authority.server("server"))
    client = _context(SSL.TLS_CLIENT_METHOD, authority.client("client"))
    for _ in range(_HANDSHAKES // 10):
        _server_s(server, client)
    return _HANDSHAKES / sum(_server_s(server, client) for _ in range(_HANDSHAKES))


def _context(method: int, pair: KeyPair) -> SSL.Context:
    context = SSL.Context(method)
    context.use_certificate(crypto.load_certificate(crypto.FILETYPE_PEM, pair.certificate_pem.encode()))
    context.use_privatekey(crypto.load_privatekey(crypto.FILETYPE_PEM, pair.private_key_pem.encode()))
    # As the gateway does: it remembers whose chain was good, so that none is verified here. The peer's key is proven.
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    SSL._lib.SSL_CTX_set1_curves_list(context._context, b"X25519")  # type: ignore[attr-defined]
    return context


def _server_s(server: SSL.Context, client: SSL.Context) -> float:
    """CPU seconds of the server's side of one handshake, its session made and freed."""
    asking = SSL.Connection(client, None)
    asking.set_connect_state()
    _step(asking)
    began_s = time.thread_time()
    answering = SSL.Connection(server, None)
    answering.set_accept_state()
    used_s = time.thread_time() - began_s
    done = False
    while not done:
        hello = asking.bio_read(_BLOCK)
        began_s = time.thread_time()
        answering.bio_write(hello)
        done = _step(answering)
        answer = b"" if done else answering.bio_read(_BLOCK)
        used_s += time.thread_time() - began_s
        if not done:
            asking.bio_write(answer)
            _step(asking)
    began_s = time.thread_time()
    del answering
    return used_s + time.thread_time() - began_s


def _step(session: SSL.Connection) -> bool:
    """Whether its handshake is over."""
    try:
        session.do_handshake()
    except SSL.WantReadError:
        return False
    return True


def _rate(one: Callable[[], object]) -> float:
    began_s = time.process_time()
    done = 0
    while (took_s := time.process_time() - began_s) < _ROUND_S:
        for _ in range(100):
            one()
        done += 100
    return done / took_s


if __name__ == "__main__":
    if sys.argv[1] == "relay":
        relay(int(sys.argv[2]))
    else:
        sys.stdout.write(json.dumps(rates()))
