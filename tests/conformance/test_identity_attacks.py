"""Certificates of the mesh's own authority that do not name exactly one service, and chains that lead nowhere."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
from collections.abc import Iterable

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import load_key_pair
from plugin.dev.pki import Authority, KeyPair
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support import attacks
from tests.support.attacks import Attack
from tests.support.crafted import Issuer

TOPIC = "Identities"

_authorities: dict[str, Authority] = {}
"""By the address of the agent that signs with it."""


async def with_our_authority(agent: ConsulAgent) -> None:
    """Let the agent sign with a root whose key is known here."""
    roots = await agent.api("GET", "/v1/agent/connect/ca/roots")
    authority = Authority("Mesh root of the case", trust_domain=roots["TrustDomain"])
    settings = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
    await agent.api("PUT", "/v1/connect/ca/configuration", {"Provider": "consul", "Config": settings})
    _authorities[agent.http_address] = authority


async def outcome(stand: Stand, pair: KeyPair) -> str:
    # Without the client's own certificate: with one for each kind of key, TLS would choose.
    context = dataclasses.replace(await stand.client(), leaf=None).context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    load_key_pair(context, pair)
    name = await stand.server_name("db")
    try:
        async with asyncio.timeout(20):
            reader, writer = await asyncio.open_connection(
                stand.gateway.address, stand.gateway.port, ssl=context, server_hostname=name
            )
            try:
                writer.write(b"ping")
                return "echo" if await reader.readexactly(4) == b"ping" else "garbled"
            finally:
                writer.transport.abort()
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError):
        return REFUSED


async def let_in(stand: Stand, tried: Iterable[Attack]) -> Observation:
    return {"let in": [name for name, pair, _ in tried if await outcome(stand, pair) != REFUSED]}


async def issuer_of(stand: Stand) -> tuple[Issuer, str, str]:
    await stand.offer()
    authority = _authorities[stand.agent.http_address]
    return Issuer.of(authority), (await stand.client()).trust_domain, stand.named("web")


@conformance(
    TOPIC,
    "A certificate of the mesh gets in as exactly one service, as Consul writes it, and never as an authority",
    envoy={"let in": ["two URIs", "the same URI twice", "a name of X.400", "a CA", "a CA that signs"]},
    ours={"let in": []},
    decision="030",
    own_consul={"before": with_our_authority},
)
async def test_names(stand: Stand) -> Observation:
    return await let_in(stand, attacks.names(*await issuer_of(stand)))


@conformance(
    TOPIC,
    "Nobody gets in by a chain that a root does not stand for, nor with a weak key",
    envoy={"let in": ["RSA of 1024 bits"]},
    ours={"let in": []},
    decision="030",
    own_consul={"before": with_our_authority},
)
async def test_chains(stand: Stand) -> Observation:
    return await let_in(stand, attacks.chains(*await issuer_of(stand)))
