"""What this program computes by itself is compared with what a real Consul answers."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from plugin.assemble.bexpr import BexprError, compile_filter
from plugin.assemble.intentions import decode_intentions
from plugin.assemble.server_names import service_sni
from plugin.consul.api import HealthEntry, IntentionMatch
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulRejected, ConsulUnavailable
from proxy.model import ServiceName
from proxy.policy.identity import Identity, parse_spiffe_id
from proxy.policy.intentions import Permit, Policy
from proxy.rules import Action

pytestmark = pytest.mark.asyncio(loop_scope="session")

FILTERS = [
    "Service.Meta.version == v1",
    'Service.Meta["version"] != "v1"',
    "Service.Meta.absent == x",
    "Service.Meta.absent != x",
    "not Service.Meta.version == v1",
    "Service.Meta.version matches `^v[12]$`",
    "Service.Meta.version matches `[0-9]`",
    "Service.Meta.version not matches `1`",
    "Service.Meta.version matches `(?i)V1`",
    "Service.Meta.absent matches `x`",
    "Service.Meta.absent not matches `x`",
    "version in Service.Meta",
    "absent not in Service.Meta",
    "Service.Meta is empty",
    "Service.Meta is not empty",
    "primary in Service.Tags",
    "Service.Tags contains secondary",
    "Service.Tags not contains primary",
    "Service.Tags is empty",
    "Service.Port == 5001",
    "Service.Port != 5001",
    "Service.Port == `0x1389`",
    "Service.Weights.Passing == 1",
    "Service.EnableTagOverride == false",
    "Service.Connect.Native == false",
    'Service.Kind == ""',
    "Service.Proxy.DestinationServiceName == x",
    "Service.TaggedAddresses.wan.Address == `192.0.2.1`",
    "Service.TaggedAddresses.wan.Port != 1",
    "10.0 in Service.Address",
    'Node.Meta["rack"] == r1',
    "Node.Meta.rack matches `r[13]`",
    "Node.Datacenter == dc1",
    "Node.Address == `10.0.0.1`",
    'Node.ID == ""',
    "Checks.Status == critical",
    "Checks.Status != passing",
    "not Checks.Status == passing",
    "Checks is empty",
    "Checks.Name contains answers",
    "Checks.ServiceTags contains primary",
    "Checks.ExposedPort == 0",
    "Checks.Notes != x",
    'Checks.Interval == "" and Checks.Timeout == "" and Checks.PeerName == ""',
    'Node.PeerName == "" and Node.Partition == ""',
    'Service.SocketPath != "" or Service.PeerName != ""',
    "Service.Meta.version == v1 and Node.Meta.rack == r1",
    "Service.Meta.version == v1 or Node.Meta.rack == r2",
    "Service.Meta.version == v1 or Node.Meta.rack == r2 and Service.Port == 1",
    "(Service.Meta.version == v1 or Node.Meta.rack == r2) and not Service.Port == 5001",
    "not not Service.Port == 5001",
]

REFUSED = [
    "Service.Nonsense == 1",
    "Service == x",
    "Service.Meta == x",
    "Service.Port matches `5`",
    "Service.Port is empty",
    "Service.Address is empty",
    "Service.Tags == primary",
    "Service.Port == high",
    "Service.EnableTagOverride == maybe",
    "Service.Meta.version matches `(`",
    "Service.Meta.version matches `(?=a)`",
    "Service.Meta.version ==",
    "Service.Meta.version = v1",
    "not(Service.Port == 1)",
    "(Service.Port == 1)and (Service.Port == 1)",
    "Service.Port == 01",
    "Service.Port == 1 Service.Port == 1",
    "Service.Meta.version == v1-beta",
    "Service.Meta.version == 'v1'",
    "(Service.Port == 1",
    "Service.Weights == 1",
    "Checks == 1",
]


@pytest.fixture(scope="module")
def service() -> str:
    return f"filtered-{uuid.uuid4().hex[:8]}"


async def register(agent: ConsulAgent, service: str) -> None:
    instances: list[dict[str, Any]] = [
        {"Meta": {"version": "v1"}, "Tags": ["primary"], "Port": 5001, "Address": "10.0.1.1"},
        {"Meta": {"version": "v2"}, "Tags": ["secondary", "x"], "Port": 5002},
        {"Port": 5003, "TaggedAddresses": {"wan": {"Address": "192.0.2.1", "Port": 15003}}},
    ]
    for number, (instance, status) in enumerate(zip(instances, ("passing", "critical", "warning"), strict=True), 1):
        check = {"Node": f"{service}-{number}", "CheckID": "c", "Name": "it answers", "ServiceID": f"i{number}"}
        body = {
            "Node": f"{service}-{number}",
            "Address": f"10.0.0.{number}",
            "NodeMeta": {"rack": f"r{number}"},
            "Service": {"ID": f"i{number}", "Service": service, **instance},
            **({"Check": {**check, "Status": status}} if number != 3 else {}),
        }
        await agent.api("PUT", "/v1/catalog/register", body)


async def entries(agent: ConsulAgent, service: str, **params: str) -> list[HealthEntry]:
    answer = await agent.api("GET", f"/v1/health/service/{service}", params=params)
    return msgspec.convert(answer, list[HealthEntry])


async def test_filters_select_what_consul_selects(consul_agent: ConsulAgent, service: str) -> None:
    await register(consul_agent, service)
    everything = await entries(consul_agent, service)
    assert len(everything) == 3
    for text in FILTERS:
        expected = [entry.service.id for entry in await entries(consul_agent, service, filter=text)]
        compiled = compile_filter(text)
        assert [entry.service.id for entry in everything if compiled.matches(entry)] == expected, text


async def test_filters_that_consul_refuses_are_refused(consul_agent: ConsulAgent, service: str) -> None:
    await register(consul_agent, service)
    for text in REFUSED:
        with pytest.raises((ConsulRejected, ConsulUnavailable), match=r"[Ff]ailed to create boolean expression"):
            await entries(consul_agent, service, filter=text)
        with pytest.raises(BexprError):
            compile_filter(text)


async def test_server_names_are_those_that_sidecars_send(consul_agent: ConsulAgent) -> None:
    name = f"Named-{uuid.uuid4().hex[:8]}"
    subsets = {"v1": {"Filter": "Service.Meta.version == v1"}}
    await consul_agent.write_config({"Kind": "service-resolver", "Name": name, "Subsets": subsets})
    roots = await consul_agent.api("GET", "/v1/agent/connect/ca/roots")
    for subset in ("", "v1"):
        if subset:
            entry = {"Kind": "service-resolver", "Name": name, "Subsets": subsets, "DefaultSubset": subset}
            await consul_agent.write_config(entry)
        answer = await consul_agent.api("GET", f"/v1/discovery-chain/{name}")
        (target,) = answer["Chain"]["Targets"].values()
        ours = service_sni(ServiceName(name), datacenter="dc1", trust_domain=roots["TrustDomain"], subset=subset)
        assert ours == target["SNI"].lower()


async def test_a_leaf_names_the_identity_that_we_read_from_it(consul_agent: ConsulAgent) -> None:
    roots = await consul_agent.api("GET", "/v1/agent/connect/ca/roots")
    for name in ("db", "name with spaces", "DB.v1_x"):
        leaf = await consul_agent.api("GET", f"/v1/agent/connect/ca/leaf/{name}")
        identity = parse_spiffe_id(leaf["ServiceURI"])
        assert identity == Identity(roots["TrustDomain"], name, "default", "default", "dc1")


async def test_decisions_are_those_of_consuls_own_check(consul_agent: ConsulAgent) -> None:
    """Every combination of exact and wildcard intentions that Consul lets one destination have."""
    suffix = uuid.uuid4().hex[:8]
    web, db, other = f"web-{suffix}", f"db-{suffix}", f"other-{suffix}"
    roots = await consul_agent.api("GET", "/v1/agent/connect/ca/roots")
    pairs = [(web, db), ("*", db), (web, "*")]
    for number in range(3 ** len(pairs)):
        actions = [(None, "allow", "deny")[number // 3**place % 3] for place in range(len(pairs))]
        for (source, destination), action in zip(pairs, actions, strict=True):
            if action is None:
                await consul_agent.delete_intention(source, destination)
            else:
                await consul_agent.write_intention(source, destination, action)
        params = {"by": "destination", "name": db}
        answer = await consul_agent.api("GET", "/v1/connect/intentions/match", params=params)
        matches = msgspec.convert(answer[db] or [], tuple[IntentionMatch, ...])
        policy = Policy(
            service=ServiceName(db),
            trust_domain=roots["TrustDomain"],
            default_action=Action.ALLOW,
            intentions=decode_intentions(matches),
            peer_bundles=(),
        )
        for source in (web, other):
            check = {"source": source, "destination": db}
            allowed = (await consul_agent.api("GET", "/v1/connect/intentions/check", params=check))["Allowed"]
            decision = policy.authorize(Identity(roots["TrustDomain"], source))
            assert isinstance(decision, Permit) == allowed, (actions, source)
    for source, destination in pairs:
        await consul_agent.delete_intention(source, destination)
