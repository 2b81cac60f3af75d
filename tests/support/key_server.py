"""A server of key sets on loopback, as an identity provider runs one, and keys to put into it."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from plugin.dev.pki import Authority, KeyPair
from plugin.dev.processes import free_ports


class SigningKey:
    """Of a provider."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.public: dict[str, Any] = {
            **ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True),
            "kid": kid,
            "use": "sig",
            "alg": "ES256",
        }

    def sign(self, **claims: Any) -> str:
        """A token."""
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.kid})


def key_set(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [key.public for key in keys]}).encode()


def kids(keys_json: str) -> list[str]:
    return [key["kid"] for key in json.loads(keys_json)["keys"]] if keys_json else []


class KeyServer:
    """Answers every path with ``content``; as an asynchronous context manager."""

    def __init__(self, folder: Path, content: bytes = b"", *, tls: bool = True) -> None:
        self.authority = Authority("Provider CA")
        self.content = content
        self.status = 200
        self.headers: dict[str, str] = {}
        self.asked: list[web.Request] = []
        self._tls = tls
        self._pair: KeyPair = self.authority.server("127.0.0.1")
        self._folder = folder
        self._runner: web.AppRunner | None = None
        self.port = free_ports(1)[0]

    @property
    def uri(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/keys"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._context()).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def serve(self, *keys: SigningKey) -> None:
        self.content = key_set(*keys)

    def _context(self) -> ssl.SSLContext | None:
        if not self._tls:
            return None
        certificate, key = self._folder / "provider.pem", self._folder / "provider.key"
        certificate.write_text(self._pair.certificate_pem)
        key.write_text(self._pair.private_key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        return web.Response(body=self.content, status=self.status, headers=self.headers)


def remote(server: KeyServer, **more: Any) -> dict[str, Any]:
    """``JSONWebKeySet`` of an entry whose keys ``server`` has."""
    trusted = {"TLSCertificates": {"TrustedCA": {"InlineString": server.authority.certificate_pem}}}
    return {"Remote": {"URI": server.uri, "JWKSCluster": trusted, **more}}
