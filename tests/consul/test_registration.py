"""The registration against a real agent: made, reported on, restored, taken back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import plugin.registration
from plugin.addresses import HostPort
from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.dev.processes import can_connect, free_ports
from plugin.errors import StartError
from plugin.registration import FORBIDDEN_RETRY_S, Registration, ready_check_id
from plugin.settings import ConsulSettings
from tests.support.eventually import SCALE, eventually
from tests.support.rights import NODES, Rights, write

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Wellness:
    def __init__(self) -> None:
        self.note = ""

    async def unwell(self) -> str:
        return self.note


@asynccontextmanager
async def registering(
    agent: ConsulAgent, service_id: str, *, token: str = "", wellness: Wellness | None = None, **options: Any
) -> AsyncIterator[Registration]:
    settings = ConsulSettings(address=agent.http_address, token=token)
    async with ConsulClient(settings) as client:
        registration = Registration(
            client,
            service=service_id,
            service_id=service_id,
            address=HostPort("127.0.0.1", 18443),
            meta=options.get("meta", {}),
            proxy_config=options.get("proxy_config", {}),
            unwell=(wellness or Wellness()).unwell,
        )
        task = asyncio.get_running_loop().create_task(registration.run())
        try:
            yield registration
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def check_status(agent: ConsulAgent, service_id: str) -> str:
    checks = await agent.api("GET", "/v1/agent/checks")
    return str(checks.get(ready_check_id(service_id), {}).get("Status", "absent"))


async def definition(agent: ConsulAgent, service_id: str) -> dict[str, Any]:
    services = await agent.api("GET", "/v1/agent/services")
    found: dict[str, Any] = services.get(service_id, {})
    return found


async def test_the_agent_knows_a_terminating_gateway(consul_agent: ConsulAgent) -> None:
    config = {"connect_timeout_ms": 2000}
    async with registering(consul_agent, "reg-known", meta={"team": "a"}, proxy_config=config) as registration:
        await eventually(lambda: registration.registered)
        found = await definition(consul_agent, "reg-known")
        assert (found["Kind"], found["Service"], found["Port"]) == ("terminating-gateway", "reg-known", 18443)
        assert (found["Address"], found["Meta"], found["Proxy"]["Config"]) == ("127.0.0.1", {"team": "a"}, config)
        assert await check_status(consul_agent, "reg-known") == "passing"
        checks = await consul_agent.api("GET", "/v1/agent/checks")
        assert checks["service:reg-known:listening"]["Type"] == "tcp"
        await registration.withdraw()


async def test_it_is_registered_again_when_the_agent_forgot_it(consul_agent: ConsulAgent) -> None:
    async with registering(consul_agent, "reg-forgotten") as registration:
        await eventually(lambda: registration.registered)
        await consul_agent.api("PUT", "/v1/agent/service/deregister/reg-forgotten")
        await eventually(lambda: definition(consul_agent, "reg-forgotten"))
        await registration.withdraw()


async def test_a_foreign_change_is_undone(consul_agent: ConsulAgent) -> None:
    async with registering(consul_agent, "reg-changed") as registration:
        await eventually(lambda: registration.registered)
        foreign = {"Kind": "terminating-gateway", "ID": "reg-changed", "Name": "reg-changed", "Port": 1}
        await consul_agent.api("PUT", "/v1/agent/service/register", foreign)

        async def restored() -> bool:
            return (await definition(consul_agent, "reg-changed")).get("Port") == 18443

        await eventually(restored)
        await registration.withdraw()


async def test_the_check_follows_the_gateways_health(consul_agent: ConsulAgent) -> None:
    wellness = Wellness()
    async with registering(consul_agent, "reg-health", wellness=wellness) as registration:
        await eventually(lambda: registration.check == "passing")
        wellness.note = "no worker answers"
        registration.report_soon()

        async def reported() -> str:
            return await check_status(consul_agent, "reg-health")

        await eventually(lambda: _is(reported, "critical"))
        wellness.note = ""
        await eventually(lambda: _is(reported, "passing"))
        await registration.withdraw()


async def test_leaving_turns_critical_first_and_then_disappears(consul_agent: ConsulAgent) -> None:
    async with registering(consul_agent, "reg-leaving") as registration:
        await eventually(lambda: registration.registered)
    # Whoever leaves has stopped watching, so nothing brings it back.
    async with ConsulClient(ConsulSettings(address=consul_agent.http_address)) as client:
        leaving = Registration(
            client,
            service="reg-leaving",
            service_id="reg-leaving",
            address=HostPort("127.0.0.1", 18443),
            meta={},
            proxy_config={},
            unwell=Wellness().unwell,
        )
        leaving.registered = True
        await leaving.fail("stopping")
        assert await check_status(consul_agent, "reg-leaving") == "critical"
        await leaving.withdraw()
        assert await definition(consul_agent, "reg-leaving") == {}


async def test_a_missing_right_is_named_and_asking_goes_on(acl_agent: ConsulAgent) -> None:
    async with registering(acl_agent, "reg-denied") as registration:
        await eventually(lambda: registration.problem)
        assert not registration.registered
        assert 'service "reg-denied" { policy = "write" }' in registration.problem


async def test_a_right_that_is_given_late_takes_effect_within_moments(
    acl_agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.registration, "RETRY_S", (3_600.0,))
    rights = await Rights.of(acl_agent, NODES)
    async with registering(acl_agent, "reg-late", token=rights.secret) as registration:
        await eventually(lambda: registration.problem)
        # With the growing pauses that other failures have, it would have come to the longest one by now.
        await asyncio.sleep(3 * FORBIDDEN_RETRY_S)
        assert not registration.registered
        await rights.become(f"{write('reg-late')}\n{NODES}")
        given_s = time.monotonic()
        await eventually(lambda: registration.registered)
        assert time.monotonic() - given_s < 5.0 * SCALE
        assert registration.problem == ""


@pytest.mark.parametrize(
    ("flags", "wan"),
    [
        ((), ""),
        (("-wan-address", "127.0.0.1:{wan}"), "127.0.0.1"),
        (("-wan-address", "192.0.2.7:{wan}"), "192.0.2.7"),
        (("-bind-address", "a=127.0.0.1:{wan}"), ""),
    ],
)
async def test_the_address_flags_register_what_consuls_own_command_does(
    consul_agent: ConsulAgent, tmp_path: Path, flags: tuple[str, ...], wan: str
) -> None:
    port, other = free_ports(2)
    arguments = [flag.format(wan=other) for flag in flags]
    theirs, ours = f"reg-theirs-{other}", f"reg-ours-{other}"
    await consul_agent.cli(
        *("connect", "envoy", "-gateway=terminating", "-register", "-bootstrap", "-ignore-envoy-compatibility"),
        *(f"-service={theirs}", f"-address=127.0.0.1:{port}", *arguments),
    )
    # Ours has the same flags with two dashes.
    dashed = [f"-{argument}" if argument.startswith("-") else argument for argument in arguments]
    bound = other if "a=127.0.0.1" in " ".join(arguments) else port
    gateway = Gateway(consul_agent, tmp_path, ours, port=port, arguments=dashed, bound_port=bound)
    async with gateway:
        await eventually(lambda: definition(consul_agent, ours))
        registered = await definition(consul_agent, ours)
    expected = await definition(consul_agent, theirs)
    await consul_agent.deregister_service(theirs)
    for field in ("Kind", "Address", "Port", "TaggedAddresses"):
        assert registered[field] == expected[field], field
    assert registered.get("Proxy", {}).get("Config") == expected.get("Proxy", {}).get("Config")
    assert registered["TaggedAddresses"].get("wan", {}).get("Address", "") == wan


async def test_several_addresses_are_all_served_and_written_into_the_definition(
    consul_agent: ConsulAgent, tmp_path: Path
) -> None:
    port, second = free_ports(2)
    gateway = Gateway(consul_agent, tmp_path, "reg-several", port=port, arguments=["--address", f"127.0.0.1:{second}"])
    async with gateway:
        assert all(can_connect("127.0.0.1", each) for each in (port, second))
        await eventually(lambda: definition(consul_agent, "reg-several"))
        found = await definition(consul_agent, "reg-several")
    extra = {"address-2": {"Address": "127.0.0.1", "Port": second}}
    assert (found["Port"], found["Proxy"]["Config"]) == (port, {"envoy_gateway_bind_addresses": extra})


async def test_without_a_definition_the_flags_apply_and_it_is_named(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    gateway = Gateway(consul_agent, tmp_path, "reg-nobody", arguments=["--no-register"])
    async with gateway:

        async def problem() -> str:
            return str((await gateway.status())["registration"]["problem"])

        assert "the agent has no service reg-nobody: register it" in await problem()
        body = {"Kind": "terminating-gateway", "ID": "reg-nobody", "Name": "reg-nobody", "Port": gateway.port}
        await consul_agent.register_service(body)

        async def cleared() -> bool:
            return await problem() == ""

        await eventually(cleared)
        await consul_agent.deregister_service("reg-nobody")


async def test_nothing_to_listen_on_ends_the_start_with_the_key(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """Envoy never becomes ready with such a definition, and says nothing."""
    (port,) = free_ports(1)
    body = {"Kind": "terminating-gateway", "ID": "reg-nowhere", "Name": "reg-nowhere", "Address": "127.0.0.1"}
    config = {"Proxy": {"Config": {"envoy_gateway_no_default_bind": True}}}
    await consul_agent.register_service(body | config | {"Port": port})
    with pytest.raises(StartError, match="envoy_gateway_no_default_bind leaves nothing to listen on"):
        await Gateway(consul_agent, tmp_path, "reg-nowhere", port=port, arguments=["--no-register"]).start()


async def _is(ask: Any, wanted: str) -> bool:
    return bool(await ask() == wanted)
