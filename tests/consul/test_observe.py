"""The observer against a real agent: what operators change reaches the facts, promptly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulForbidden, ConsulUnavailable
from plugin.facts import ServiceFacts
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import ConsulSettings
from proxy.model import ServiceName
from proxy.rules import Action
from tests.conftest import AgentFactory
from tests.support.eventually import SCALE, eventually


@contextlib.asynccontextmanager
async def observing(agent: ConsulAgent, gateway: str, token: str | None = None) -> AsyncIterator[FactStore]:
    store = FactStore()
    secret = agent.management_token if token is None else token
    async with ConsulClient(ConsulSettings(address=agent.http_address, token=secret)) as client:
        task = asyncio.get_running_loop().create_task(Observer(client, store, gateway).run())
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def link(agent: ConsulAgent, gateway: str, *services: str) -> None:
    links = [{"Name": name} for name in services]
    await agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": links})


def complete(facts: ServiceFacts) -> bool:
    return all(f.known for f in (facts.instances, facts.intentions, facts.leaf, facts.defaults, facts.resolver))


def actions(store: FactStore, name: ServiceName) -> dict[str, str]:
    return {each.source_name: each.action for each in store.service_facts(name).intentions.value or ()}


def new_ca_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
    return key.private_bytes(*encoding, serialization.NoEncryption()).decode()


async def rotate_ca(agent: ConsulAgent) -> None:
    config: dict[str, Any] = {"Provider": "consul", "Config": {"PrivateKey": new_ca_key(), "LeafCertTTL": "72h"}}
    await agent.api("PUT", "/v1/connect/ca/configuration", config)


async def test_linked_service_becomes_complete(consul_agent: ConsulAgent) -> None:
    await consul_agent.register_external("observe-node", "10.0.0.9", "observe-db", 5432)
    await link(consul_agent, "observe-gw", "observe-db")
    async with observing(consul_agent, "observe-gw") as store:
        name = ServiceName("observe-db")
        await eventually(lambda: store.linked() == (name,) and complete(store.service_facts(name)))
        facts = store.service_facts(name)
        assert [(each.node.address, each.service.port) for each in facts.instances.value or ()] == [("10.0.0.9", 5432)]
        assert facts.leaf.value is not None
        assert facts.leaf.value.spiffe_id.endswith("/ns/default/dc/dc1/svc/observe-db")
        mesh = store.mesh_facts()
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert mesh.datacenter == "dc1"
        assert mesh.roots.value is not None
        assert store.mesh_facts().default_action.value is Action.ALLOW, "an agent without ACLs allows"


async def test_intention_reaches_the_facts_within_milliseconds(consul_agent: ConsulAgent) -> None:
    await link(consul_agent, "prompt-gw", "prompt-db")
    name = ServiceName("prompt-db")
    async with observing(consul_agent, "prompt-gw") as store:
        await eventually(lambda: store.linked() and complete(store.service_facts(name)))
        took_s = []
        for action in ("allow", "deny") * 4:
            await consul_agent.write_intention("web", "prompt-db", action)
            written_s = time.monotonic()
            while actions(store, name) != {"web": action}:
                await asyncio.wait_for(store.changed(), 10 * SCALE)
            took_s.append(time.monotonic() - written_s)
            await asyncio.sleep(0.5)
        # The median, since one of eight may fall into a pause of the machine.
        assert sorted(took_s)[len(took_s) // 2] < 0.1 * SCALE, took_s
        await consul_agent.delete_intention("web", "prompt-db")
        await eventually(lambda: actions(store, name) == {})
        assert store.service_facts(name).intentions.known


async def test_wildcard_expands_and_explicit_links_stay(consul_agent: ConsulAgent) -> None:
    await consul_agent.register_external("wild-node", "10.0.0.8", "wild-a", 1)
    wild = {"Name": "*", "CAFile": "/wild.pem"}
    explicit = {"Name": "wild-a", "CAFile": "/a.pem"}
    entry = {"Kind": "terminating-gateway", "Name": "wild-gw", "Services": [wild, explicit]}
    await consul_agent.write_config(entry)
    async with observing(consul_agent, "wild-gw") as store:
        await eventually(lambda: ServiceName("wild-a") in store.linked())
        await consul_agent.register_external("wild-node", "10.0.0.8", "wild-b", 2)
        await eventually(lambda: ServiceName("wild-b") in store.linked())
        # Registering again makes Consul overwrite the row of the explicit link with that of the wildcard.
        await consul_agent.register_external("wild-node", "10.0.0.8", "wild-a", 3)
        a = ServiceName("wild-a")
        await eventually(lambda: [i.service.port for i in store.service_facts(a).instances.value or ()] == [3])
        assert store.service_facts(a).link.ca_file == "/a.pem"
        assert store.service_facts(ServiceName("wild-b")).link.ca_file == "/wild.pem"
        await consul_agent.deregister_external("wild-node")
        await eventually(lambda: ServiceName("wild-b") not in store.linked())
        assert a in store.linked()
        await consul_agent.delete_config("terminating-gateway", "wild-gw")
        await eventually(lambda: store.linked() == () and store.entry.fact.known)


async def test_health_and_entries_follow_consul(consul_agent: ConsulAgent) -> None:
    await link(consul_agent, "follow-gw", "follow-db")
    name = ServiceName("follow-db")
    async with observing(consul_agent, "follow-gw") as store:
        await eventually(lambda: store.linked() and complete(store.service_facts(name)))
        assert store.service_facts(name).instances.value == ()
        check = {"Node": "follow-node", "CheckID": "c", "Name": "c", "ServiceID": "follow-db", "Status": "critical"}
        await consul_agent.api(
            "PUT",
            "/v1/catalog/register",
            {
                "Node": "follow-node",
                "Address": "10.0.0.7",
                "Service": {"ID": "follow-db", "Service": "follow-db", "Port": 1},
                "Check": check,
            },
        )
        await eventually(
            lambda: (
                [c.status for i in store.service_facts(name).instances.value or () for c in i.checks] == ["critical"]
            )
        )
        await consul_agent.write_config({"Kind": "service-defaults", "Name": "follow-db", "Protocol": "http"})
        await eventually(lambda: store.service_facts(name).defaults.value)
        await consul_agent.delete_config("service-defaults", "follow-db")
        await eventually(lambda: store.service_facts(name).defaults.value is None)


async def test_missing_permissions_are_named_per_service_and_hurt_nobody_else(acl_agent: ConsulAgent) -> None:
    await acl_agent.register_external("acl-node", "10.0.0.6", "acl-open", 1)
    await acl_agent.register_external("acl-node", "10.0.0.6", "acl-shut", 2)
    await link(acl_agent, "acl-gw", "acl-open", "acl-shut")
    rules = 'service "acl-gw" { policy = "write" } service "acl-open" { policy = "write" }\n'
    token = await acl_agent.create_token(rules + 'node_prefix "" { policy = "read" }')
    async with observing(acl_agent, "acl-gw", token) as store:
        await eventually(lambda: store.linked() and complete(store.service_facts(ServiceName("acl-open"))))

        def shut() -> bool:
            facts = store.service_facts(ServiceName("acl-shut"))
            problems = (facts.leaf.problem, facts.intentions.problem, facts.instances.problem)
            assert all(isinstance(problem, ConsulForbidden) for problem in problems), problems
            return not (facts.leaf.known or facts.intentions.known or facts.instances.known)

        await eventually(shut)
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert store.mesh_facts().default_action.value is Action.DENY


async def test_entry_that_may_not_be_read_is_unknown_not_absent(acl_agent: ConsulAgent) -> None:
    await link(acl_agent, "hidden-gw", "hidden-db")
    token = await acl_agent.create_token('service "another" { policy = "write" }')
    async with observing(acl_agent, "hidden-gw", token) as store:
        await eventually(lambda: store.entry.fact.problem)
        assert not store.entry.fact.known
        assert isinstance(store.entry.fact.problem, ConsulForbidden)
        assert store.entry.fact.problem.rule == 'service "hidden-gw" { policy = "read" }'


@pytest.mark.parametrize(
    ("options", "action"),
    [
        ({"acl": True, "default_policy": "deny"}, Action.DENY),
        ({"acl": True, "default_policy": "allow"}, Action.ALLOW),
        ({"acl": True, "default_policy": "deny", "default_intention_policy": "allow"}, Action.ALLOW),
        ({"default_intention_policy": "deny"}, Action.DENY),
    ],
)
@pytest.mark.parametrize("may_ask_the_agent", [True, False])
async def test_default_action_of_each_setting(
    start_agent: AgentFactory, options: dict[str, Any], action: Action, may_ask_the_agent: bool
) -> None:
    agent = await start_agent(**options)
    token = ""
    if agent.acl:
        rules = 'service_prefix "" { policy = "write" }\n'
        rules += f'agent_prefix "" {{ policy = "{"read" if may_ask_the_agent else "deny"}" }}'
        token = await agent.create_token(rules)
    async with observing(agent, "default-gw", token) as store:
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert store.mesh_facts().default_action.value is action


async def test_rotated_ca_brings_a_new_leaf(start_agent: AgentFactory) -> None:
    agent = await start_agent()
    await link(agent, "rotate-gw", "rotate-db")
    name = ServiceName("rotate-db")
    async with observing(agent, "rotate-gw") as store:
        await eventually(lambda: store.linked() and complete(store.service_facts(name)))
        first = store.service_facts(name).leaf.value
        assert first is not None
        await rotate_ca(agent)
        await eventually(lambda: len(getattr(store.mesh_facts().roots.value, "roots", None) or ()) == 2)
        await eventually(lambda: store.service_facts(name).leaf.value != first, timeout_s=10)

        # Once it is registered, the agent itself renews the leaf, at any time within 30 s.
        await agent.register_service({"Kind": "terminating-gateway", "ID": "rotate-gw", "Name": "rotate-gw", "Port": 1})
        await asyncio.sleep(1)
        second = store.service_facts(name).leaf.value
        await rotate_ca(agent)
        await eventually(lambda: store.service_facts(name).leaf.value != second, timeout_s=45)


async def test_agent_away_keeps_the_facts_and_its_return_is_noticed(start_agent: AgentFactory) -> None:
    agent = await start_agent(persistent=True)
    await agent.register_external("away-node", "10.0.0.5", "away-db", 1)
    await link(agent, "away-gw", "away-db")
    await agent.write_intention("web", "away-db")
    name = ServiceName("away-db")
    async with observing(agent, "away-gw") as store:
        await eventually(lambda: store.linked() and complete(store.service_facts(name)))
        before = store.service_facts(name)
        await agent.stop()
        await eventually(lambda: isinstance(store.mesh_facts().roots.problem, ConsulUnavailable))
        await eventually(lambda: isinstance(store.service_facts(name).instances.problem, ConsulUnavailable))
        after = store.service_facts(name)
        assert (after.instances.value, after.intentions.value, after.leaf.value) == (
            before.instances.value,
            before.intentions.value,
            before.leaf.value,
        )
        await agent.start()
        await agent.write_intention("web", "away-db", "deny")
        await eventually(lambda: actions(store, name) == {"web": "deny"})
        await eventually(lambda: store.service_facts(name).instances.problem is None)


async def test_relinked_service_starts_afresh(consul_agent: ConsulAgent) -> None:
    await link(consul_agent, "relink-gw", "relink-a", "relink-b")
    async with observing(consul_agent, "relink-gw") as store:
        await eventually(
            lambda: len(store.linked()) == 2 and all(map(complete, map(store.service_facts, store.linked())))
        )
        await link(consul_agent, "relink-gw", "relink-b")
        await eventually(lambda: store.linked() == (ServiceName("relink-b"),))
        await link(consul_agent, "relink-gw", "relink-a", "relink-b")
        await eventually(
            lambda: len(store.linked()) == 2 and all(map(complete, map(store.service_facts, store.linked())))
        )


async def test_hundred_services_stay_within_the_connection_budget(consul_agent: ConsulAgent) -> None:
    names = [f"many-{number:03}" for number in range(100)]
    await link(consul_agent, "many-gw", *names)
    store = FactStore()
    async with ConsulClient(ConsulSettings(address=consul_agent.http_address)) as client:
        observer = Observer(client, store, "many-gw")
        task = asyncio.get_running_loop().create_task(observer.run())
        await eventually(
            lambda: len(store.linked()) == 100 and all(complete(store.service_facts(name)) for name in store.linked()),
            timeout_s=60,
        )
        await consul_agent.register_external("many-node", "10.0.0.4", "many-099", 9)
        await eventually(lambda: store.service_facts(ServiceName("many-099")).instances.value)
        connector = client.transport._open().connector
        assert connector is not None
        assert len(connector._acquired) < 64
        json.dumps([state.name for state in observer.watch_states()])
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
