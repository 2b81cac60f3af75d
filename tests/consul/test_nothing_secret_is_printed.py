"""Runs after all others: what gateways, workers and commands have printed in this run was read, and holds no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.errors import StartError
from tests.support.command import consul_tgw
from tests.support.secrecy import OUTPUT

pytestmark = pytest.mark.asyncio(loop_scope="session")

BYTES_EACH = 300
"""Less than what a gateway says of its start and end."""


async def test_the_most_talkative_gateway_keeps_its_secrets(acl_agent: ConsulAgent, work_dir: Path) -> None:
    before = OUTPUT.bytes_read
    arguments = ["--log-level=debug", "--log-format=json"]
    environment = {"CONSUL_HTTP_AUTH": "operator:a password for nobody", "CONSUL_TGW_ADMIN_TOKEN": "a-token-for-nobody"}
    async with Gateway(acl_agent, work_dir, "talkative", arguments=arguments, environment=environment) as gateway:
        said = await consul_tgw("status", f"--admin-address=127.0.0.1:{gateway.admin_port}", environment=environment)
        assert said.code == 0
    unusable = {"CONSUL_HTTP_TOKEN": "a-token-that-nobody\nknows"}
    with pytest.raises(StartError, match="CONSUL_HTTP_TOKEN holds a line break"):
        await Gateway(acl_agent, work_dir, "refused", environment=unusable).start()
    assert OUTPUT.check() == []
    assert OUTPUT.bytes_read > before + 2 * BYTES_EACH
    assert {acl_agent.management_token.encode(), b"a password for nobody", b"a-token-for-nobody"} <= OUTPUT.secrets


async def test_everything_was_read_and_nothing_was_mute() -> None:
    assert OUTPUT.check() == []
    assert OUTPUT.sources
    assert OUTPUT.bytes_read > BYTES_EACH
    assert [name for name in OUTPUT.silent() if name.startswith("gateway ")] == []
