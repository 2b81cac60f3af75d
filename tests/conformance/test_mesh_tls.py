"""``TLS.Incoming`` of the mesh entry: which TLS the gateway's callers may speak."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulRejected
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "Mesh TLS"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
ECDSA_256 = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"


def mesh(**incoming: Any) -> dict[str, Any]:
    return {"Kind": "mesh", "TLS": {"Incoming": incoming}}


def before(**incoming: Any) -> dict[str, Callable[[ConsulAgent], Awaitable[None]]]:
    """A Consul whose mesh entry says so before the gateways start."""

    async def write(agent: ConsulAgent) -> None:
        await agent.write_config(mesh(**incoming))

    return {"before": write}


async def spoken(stand: Stand) -> dict[str, str]:
    return {"1.2": await outcome(stand, TLS12), "1.3": await outcome(stand, TLS13)}


async def outcome(stand: Stand, version: ssl.TLSVersion) -> str:
    client = await stand.client()
    gateway = stand.gateway
    try:
        connection = await client.connect(
            gateway.address, gateway.port, await stand.server_name("db"), minimum=version, maximum=version
        )
        async with connection:
            return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
    except (Refused, OSError):
        return REFUSED


@conformance(
    TOPIC, "Without an entry, callers speak TLS 1.2 and 1.3", expect={"1.2": "echo", "1.3": "echo"}, own_consul={}
)
async def test_default(stand: Stand) -> Observation:
    await stand.offer()
    return await spoken(stand)


@conformance(
    TOPIC,
    "TLSMaxVersion TLSv1_2 leaves TLS 1.2 alone",
    expect={"1.2": "echo", "1.3": "refused"},
    own_consul=before(TLSMinVersion="TLSv1_2", TLSMaxVersion="TLSv1_2"),
)
async def test_only_1_2(stand: Stand) -> Observation:
    await stand.offer()
    return await spoken(stand)


@conformance(
    TOPIC,
    "TLSMinVersion TLSv1_3, written while running, ends TLS 1.2",
    expect={"1.2": "refused", "1.3": "echo"},
    own_consul={},
)
async def test_only_1_3_while_running(stand: Stand) -> Observation:
    await stand.offer()
    await stand.agent.write_config(mesh(TLSMinVersion="TLSv1_3"))

    async def ended() -> bool:
        return await outcome(stand, TLS12) == REFUSED

    await eventually(ended, 60.0, what="TLS 1.2 is refused")
    return await spoken(stand)


@conformance(
    TOPIC,
    "CipherSuites choose what TLS 1.2 uses",
    expect={"cipher": "ECDHE-ECDSA-AES256-GCM-SHA384", "1.3": "echo"},
    own_consul=before(CipherSuites=[ECDSA_256]),
)
async def test_cipher_suites(stand: Stand) -> Observation:
    await stand.offer()
    client, gateway = await stand.client(), stand.gateway
    name = await stand.server_name("db")
    async with await client.connect(gateway.address, gateway.port, name, minimum=TLS12, maximum=TLS12) as connection:
        cipher = connection.writer.get_extra_info("cipher")[0]
    return {"cipher": cipher, "1.3": await outcome(stand, TLS13)}


@conformance(
    TOPIC,
    "Consul refuses a cipher suite that it does not know; what was in force stays",
    expect={"written": False, "1.2": "echo", "1.3": "echo"},
    own_consul={},
)
async def test_unknown_cipher_suite(stand: Stand) -> Observation:
    await stand.offer()
    try:
        await stand.agent.write_config(mesh(CipherSuites=["TLS_MADE_UP"]))
        written = True
    except ConsulRejected:
        written = False
    await stand.settled()
    return {"written": written, **await spoken(stand)}


@conformance(
    TOPIC,
    "Suites for RSA certificates alone leave TLS 1.2 nothing to use, and TLS 1.3 as it was: leaves have EC keys",
    expect={"1.2": "refused", "1.3": "echo"},
    own_consul=before(CipherSuites=["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
)
async def test_suites_for_another_key(stand: Stand) -> Observation:
    await stand.offer()
    return await spoken(stand)
