"""Tokens from end to end: a real Consul has the entries, a real server the keys, a gateway decides each request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, hello
from plugin.dev.gateway import Gateway
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer, SigningKey, remote
from tests.support.linking import Links, dial, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SOURCE, SERVICE = "jwt-gateway", "jwt-client", "jwt-api"
ISSUER = "https://login.example/"
QUICKLY = {"RetryPolicyBackOff": {"BaseInterval": "50ms", "MaxInterval": "100ms"}}
OLD, NEW, FOREIGN = SigningKey("old"), SigningKey("new"), SigningKey("old")


class Scene:
    def __init__(self, agent: ConsulAgent, gateway: Gateway, keys: KeyServer, client: MeshClient) -> None:
        self.agent, self.gateway, self.keys = agent, gateway, keys
        self._client = client

    async def provide(self, **fields: Any) -> None:
        entry = {"Kind": "jwt-provider", "Name": "login", "Issuer": ISSUER, "Audiences": ["reports"], **fields}
        key_set = remote(self.keys, CacheDuration="1s", RetryPolicy=QUICKLY)
        await self.agent.write_config({"JSONWebKeySet": key_set, **entry})

    async def intend(self, *permissions: dict[str, Any], **of_all: Any) -> None:
        source = {"Name": SOURCE, "Permissions": permissions} if permissions else {"Name": SOURCE, "Action": "allow"}
        await self.agent.write_config({"Kind": "service-intentions", "Name": SERVICE, "Sources": [source], **of_all})

    async def asks(self, path: str = "/", token: str = "") -> int:
        """The status that a request gets."""
        header = f"authorization: Bearer {token}\r\n" if token else ""
        async with await dial(self._client, self.gateway, SERVICE) as connection:
            await connection.send(f"GET {path} HTTP/1.1\r\nhost: {SERVICE}\r\n{header}\r\n".encode())
            return int((await connection.receive_exactly(12))[9:])

    async def gets(self, expected: int, path: str = "/", token: str = "") -> None:
        async def is_so() -> bool:
            return await self.asks(path, token) == expected

        await eventually(is_so, what=f"{path} is answered {expected}")


def token(key: SigningKey, **claims: Any) -> str:
    return key.sign(**{"iss": ISSUER, "aud": "reports", "exp": int(time.time()) + 600, **claims})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("jwt")
    async with (
        ConsulAgent(folder / "consul", default_intention_policy="deny") as agent,
        ExternalService(hello) as backend,
        KeyServer(folder) as keys,
        Gateway(agent, folder, GATEWAY) as gateway,
    ):
        await agent.write_config({"Kind": "service-defaults", "Name": SERVICE, "Protocol": "http"})
        await Links(agent, GATEWAY).add(SERVICE, backend.port)
        await serves(gateway, SERVICE)
        keys.serve(OLD)
        scene = Scene(agent, gateway, keys, await MeshClient.of(agent, SOURCE))
        await scene.provide()
        yield scene


NEEDED = {"JWT": {"Providers": [{"Name": "login"}]}}


async def test_a_request_needs_a_token_of_the_provider(scene: Scene) -> None:
    await scene.intend(**NEEDED)
    await scene.gets(200, token=token(OLD))
    assert await scene.asks() == 401
    for wrong in (
        token(FOREIGN),
        token(OLD, iss="https://other.example/"),
        token(OLD, aud="payroll"),
        token(OLD, exp=int(time.time()) - 600),
        "nonsense",
    ):
        assert await scene.asks(token=wrong) == 401


async def test_a_permission_needs_a_claim(scene: Scene) -> None:
    claims = [{"Path": ["groups", "reports"], "Value": "write"}]
    await scene.intend(
        {
            "Action": "allow",
            "HTTP": {"PathPrefix": "/write"},
            "JWT": {"Providers": [{"Name": "login", "VerifyClaims": claims}]},
        },
        {"Action": "allow", "HTTP": {"PathPrefix": "/read"}},
    )
    writer, reader = token(OLD, groups={"reports": "write"}), token(OLD, groups={"reports": "read"})
    await scene.gets(200, "/read")
    assert await scene.asks("/write", writer) == 200
    assert await scene.asks("/write", reader) in (401, 403)
    assert await scene.asks("/write") in (401, 403)
    assert await scene.asks("/elsewhere", writer) in (401, 403)


async def test_keys_rotate_and_survive_a_server_that_is_away(scene: Scene) -> None:
    await scene.intend(**NEEDED)
    await scene.gets(200, token=token(OLD))
    scene.keys.serve(OLD, NEW)
    await scene.gets(200, token=token(NEW))
    assert await scene.asks(token=token(OLD)) == 200
    scene.keys.serve(NEW)
    await scene.gets(401, token=token(OLD))
    scene.keys.status = 503

    async def is_reported() -> bool:
        warnings = (await scene.gateway.status())["warnings"]
        return any("status 503" in text and "stay in force" in text for text in warnings)

    await eventually(is_reported)
    assert await scene.asks(token=token(NEW)) == 200
    scene.keys.status = 200
    scene.keys.serve(OLD)
    await scene.gets(200, token=token(OLD))


async def test_a_new_key_counts_as_soon_as_a_token_names_it(scene: Scene) -> None:
    """The keys are good for an hour: nothing but the token makes the gateway ask again."""
    hour = remote(scene.keys, CacheDuration="1h", RetryPolicy=QUICKLY)
    await scene.provide(JSONWebKeySet=hour)
    await scene.intend(**NEEDED)
    await scene.gets(200, token=token(OLD))
    scene.keys.serve(NEW)
    assert await scene.asks(token=token(NEW)) == 401
    await scene.gets(200, token=token(NEW))
    assert await scene.asks(token=token(OLD)) == 401
    scene.keys.serve(OLD)
    await scene.provide()
    await scene.gets(200, token=token(OLD))


async def test_another_entry_counts_at_once_and_a_broken_one_lets_nobody_in(scene: Scene) -> None:
    await scene.intend(**NEEDED)
    await scene.gets(200, token=token(OLD))
    await scene.provide(Audiences=["payroll"])
    await scene.gets(401, token=token(OLD))
    assert await scene.asks(token=token(OLD, aud="payroll")) == 200
    await scene.provide(JSONWebKeySet={"Remote": {"URI": "http://127.0.0.1:1/keys", "RetryPolicy": QUICKLY}})

    async def refused() -> bool:
        return await scene.asks(token=token(OLD)) in (401, 403)

    await eventually(refused)

    async def is_reported() -> bool:
        (service,) = [one for one in (await scene.gateway.status())["services"] if one["name"] == SERVICE]
        return any("whoever needs a token of the jwt-provider login is refused" in text for text in service["warnings"])

    await eventually(is_reported)
    await scene.provide()
    await scene.gets(200, token=token(OLD))
