"""What a ``service-resolver`` means to a terminating gateway: subsets and time limits, and nothing else."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from plugin.dev.gateway import Gateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "Resolvers"
VERSIONS = {"v1": {"Filter": "Service.Meta.version == v1"}, "v2": {"Filter": "Service.Meta.version == v2"}}
_TALLY = 8


@conformance(
    TOPIC,
    "A subset is the instances that its Filter selects; the service's own name is all of them",
    expect={"v1": ["v1"], "v2": ["v2"], "no subset": ["v1", "v2"], "a subset it does not have": ["refused"]},
)
async def test_subsets(stand: Stand) -> Observation:
    await versions(stand)
    await stand.config("service-resolver", "db", Subsets=VERSIONS)
    await subset_is(stand, "v2", ["v2"])
    return {
        "v1": await answers(stand, "v1"),
        "v2": await answers(stand, "v2"),
        "no subset": await answers(stand),
        "a subset it does not have": await answers(stand, "v3"),
    }


@conformance(
    TOPIC,
    "DefaultSubset is what the service's own name stands for",
    expect={"no subset": ["v2"], "v1": ["v1"]},
)
async def test_default_subset(stand: Stand) -> Observation:
    await versions(stand)
    await stand.config("service-resolver", "db", DefaultSubset="v2", Subsets=VERSIONS)
    await subset_is(stand, "", ["v2"])
    return {"no subset": await answers(stand), "v1": await answers(stand, "v1")}


@conformance(
    TOPIC,
    "A Filter is changed: its subset follows",
    expect={"before": ["v1"], "after": ["v2"]},
)
async def test_filter_changed(stand: Stand) -> Observation:
    await versions(stand)
    await stand.config("service-resolver", "db", Subsets={"chosen": VERSIONS["v1"]})
    await subset_is(stand, "chosen", ["v1"])
    before = await answers(stand, "chosen")
    await stand.config("service-resolver", "db", Subsets={"chosen": VERSIONS["v2"]})
    await subset_is(stand, "chosen", ["v2"])
    return {"before": before, "after": await answers(stand, "chosen")}


@conformance(
    TOPIC,
    "A subset that selects no instance refuses; it never falls back to the others",
    expect={"none": ["refused"], "no subset": ["v1", "v2"]},
)
async def test_subset_of_nothing(stand: Stand) -> Observation:
    await versions(stand)
    nothing = {"Filter": "Service.Meta.version == v9"}
    await stand.config("service-resolver", "db", Subsets={"none": nothing, **VERSIONS})
    await subset_is(stand, "v1", ["v1"])
    return {"none": await answers(stand, "none"), "no subset": await answers(stand)}


@conformance(
    TOPIC,
    "Instances move between subsets as they are registered again",
    expect={"v1": ["refused"], "v2": ["v1", "v2"]},
)
async def test_instance_moves(stand: Stand) -> Observation:
    first, _ = await versions(stand)
    await stand.config("service-resolver", "db", Subsets=VERSIONS)
    await subset_is(stand, "v1", ["v1"])
    await stand.register("db", first, node="v1", meta={"version": "v2"})
    await subset_is(stand, "v1", [REFUSED])
    return {"v1": await answers(stand, "v1"), "v2": await answers(stand, "v2")}


@conformance(
    TOPIC,
    "OnlyPassing leaves out instances with a warning",
    expect={"OnlyPassing": ["v1"], "no subset": ["v1", "v2"]},
)
async def test_only_passing(stand: Stand) -> Observation:
    await versions(stand, v2={"check_status": "warning"})
    await stand.config("service-resolver", "db", Subsets={"sound": {"OnlyPassing": True}})
    await subset_is(stand, "sound", ["v1"])
    return {"OnlyPassing": await answers(stand, "sound"), "no subset": await answers(stand)}


@conformance(
    TOPIC,
    "OnlyPassing while every instance has a warning: all are used",
    expect={"OnlyPassing": ["v1", "v2"]},
)
async def test_only_passing_with_warnings_everywhere(stand: Stand) -> Observation:
    await versions(stand, v1={"check_status": "warning"}, v2={"check_status": "warning"})
    await stand.config("service-resolver", "db", Subsets={"sound": {"OnlyPassing": True}})
    await subset_is(stand, "sound", ["v1", "v2"])
    return {"OnlyPassing": await answers(stand, "sound")}


@conformance(
    TOPIC,
    "The resolver is deleted: the names of its subsets are gone, the service's own name is all instances again",
    expect={"v1": ["refused"], "no subset": ["v1", "v2"]},
)
async def test_deleted(stand: Stand) -> Observation:
    await versions(stand)
    await stand.config("service-resolver", "db", DefaultSubset="v2", Subsets=VERSIONS)
    await subset_is(stand, "", ["v2"])
    await stand.no_config("service-resolver", "db")
    await subset_is(stand, "v1", [REFUSED])
    await subset_is(stand, "", ["v1", "v2"])
    return {"v1": await answers(stand, "v1"), "no subset": await answers(stand)}


@conformance(
    TOPIC,
    "Redirect is the caller's business: the gateway goes on serving the service itself",
    expect={"db": ["v1", "v2"], "its target": "echo"},
)
async def test_redirect(stand: Stand) -> Observation:
    await versions(stand)
    await stand.offer("other")
    await stand.config("service-resolver", "db", Redirect={"Service": stand.named("other")})
    await stand.settled()
    return {"db": await answers(stand), "its target": await stand.outcome(service="other")}


@conformance(
    TOPIC,
    "Failover is the caller's business: a service whose instances are gone is refused by the gateway",
    expect={"db": ["refused"], "its failover": "echo"},
)
async def test_failover(stand: Stand) -> Observation:
    await versions(stand)
    await stand.offer("other")
    await stand.config("service-resolver", "db", Failover={"*": {"Service": stand.named("other")}})
    for node in ("v1", "v2"):
        await stand.deregister(node)
    await stand.kept_out()
    await stand.settled()
    return {"db": await answers(stand), "its failover": await stand.outcome(service="other")}


@conformance(
    TOPIC,
    "A resolver of a service that is not linked adds no server name",
    expect={"db": "echo", "not linked": "refused", "its subset": "refused"},
)
async def test_resolver_of_an_unlinked_service(stand: Stand) -> Observation:
    backend = await stand.offer()
    await stand.register("stray", backend.port, node="stray")
    await stand.intention("web", "stray")
    await stand.config("service-resolver", "stray", Subsets={"all": {}})
    await stand.settled()
    return {
        "db": await stand.outcome(),
        "not linked": await stand.outcome(service="stray"),
        "its subset": await stand.outcome(service="stray", subset="all"),
    }


@conformance(
    TOPIC,
    "The resolver is there before the link",
    expect={"v1": ["v1"], "no subset": ["v2"]},
)
async def test_resolver_before_the_link(stand: Stand) -> Observation:
    await stand.config("service-resolver", "db", DefaultSubset="v2", Subsets=VERSIONS)
    await versions(stand, wait=False)
    await subset_is(stand, "v1", ["v1"])
    return {"v1": await answers(stand, "v1"), "no subset": await answers(stand)}


@conformance(
    TOPIC,
    "ConnectTimeout ends the attempt to reach a server that does not answer; without it that takes 5 s",
    expect={"ConnectTimeout 1s": "after 1 s", "none": "after 5 s"},
)
async def test_connect_timeout(stand: Stand) -> Observation:
    await stand.config("service-resolver", "quick", ConnectTimeout="1s")
    async with unanswering() as port:
        for service, node in (("quick", "one"), ("usual", "two")):
            await stand.register(service, port, node=node)
            await stand.intention("web", service)
            await stand.link(service)
        await stand.settled()
        return {"ConnectTimeout 1s": await gives_up(stand, "quick"), "none": await gives_up(stand, "usual")}


FIELDS = {
    "Node.Node matches `^node-v1-`": ["v1"],
    'Node.Meta["external-node"] == true and Node.Datacenter == dc1': ["v1", "v2"],
    "Node.Address == `127.0.0.2` or Service.Port != 0": ["v1", "v2"],
    'Node.PeerName != ""': [REFUSED],
    'Node.PeerName == ""': ["v1", "v2"],
    'Service.Tags contains "primary"': ["v1"],
    "primary not in Service.Tags": ["v2"],
    'not Service.Meta["version"] matches `^v[13]$`': ["v2"],
    "Service.Meta.absent == x": [REFUSED],
    "Service.Meta.absent != x": ["v1", "v2"],
    "Service.Weights.Passing == 3": ["v2"],
    'Service.SocketPath == "" and Service.PeerName == "" and Service.Connect.Native == false': ["v1", "v2"],
    "Checks.Status == passing and Checks.ExposedPort == 0": ["v1"],
    "Checks.Name matches `answers$` and Checks is not empty": ["v1", "v2"],
}
"""Filters, and whom they select."""


@conformance(TOPIC, "A Filter may name the fields of nodes, instances and checks", expect=FIELDS)
async def test_fields_of_filters(stand: Stand) -> Observation:
    second = {"weights": {"Passing": 3, "Warning": 3}, "check_status": "warning"}
    await versions(stand, v1={"tags": ["primary"]}, v2=second)
    subsets = {f"s{number}": {"Filter": text} for number, text in enumerate(FIELDS)}
    await stand.config("service-resolver", "db", Subsets=subsets)
    await subset_is(stand, "s0", ["v1"])
    return {text: await answers(stand, f"s{number}") for number, text in enumerate(FIELDS)}


RARE_FIELDS = {
    'Checks.Output == ""': ["v2"],
    "Checks.Output contains `5 ms`": ["v1"],
    "Checks.Output matches `^answered in [0-9]+ ms$`": ["v1"],
    'not Checks.Output matches "^answered"': ["v2"],
    "Checks.CheckID matches `^check-`": ["v1", "v2"],
    "Service.Proxy.LocalServicePort == 9000": ["v1"],
    "Service.Proxy.Upstreams is empty": ["v2"],
    "Service.Proxy.Upstreams.DestinationName == other": ["v1"],
    "Service.Proxy.Upstreams.MeshGateway.Mode == local": ["v1"],
    "Service.Proxy.Expose.Paths.Path != `/ready`": [REFUSED],
    "Service.Proxy.Expose.Paths.ListenerPort == 21500": ["v1"],
    "Service.Proxy.TransparentProxy.DialedDirectly == false": ["v1", "v2"],
    "Service.Proxy.AccessLogs.Type == file": ["v1"],
    'Service.Proxy.Mode == "" and Service.Proxy.EnvoyExtensions is empty': ["v1", "v2"],
}
PROXY = {
    "LocalServicePort": 9000,
    "Upstreams": [{"DestinationName": "other", "LocalBindPort": 9191, "MeshGateway": {"Mode": "local"}}],
    "Expose": {"Paths": [{"Path": "/ready", "ListenerPort": 21500, "LocalPathPort": 9000}]},
    "AccessLogs": {"Enabled": True, "Type": "file", "Path": "/dev/null"},
}


@conformance(TOPIC, "A Filter may name the output of checks and every field of an instance's Proxy", expect=RARE_FIELDS)
async def test_rare_fields_of_filters(stand: Stand) -> Observation:
    await versions(stand, v1={"check_output": "answered in 15 ms", "proxy": PROXY})
    subsets = {f"s{number}": {"Filter": text} for number, text in enumerate(RARE_FIELDS)}
    await stand.config("service-resolver", "db", Subsets=subsets)
    await subset_is(stand, "s0", ["v2"])
    return {text: await answers(stand, f"s{number}") for number, text in enumerate(RARE_FIELDS)}


@conformance(
    TOPIC,
    "The output of a check changes and nothing else: instances move between subsets",
    expect={"before": ["v1"], "after": ["v2"]},
)
async def test_output_changes(stand: Stand) -> Observation:
    first, second = await versions(stand, v1={"check_output": "leader"}, v2={"check_output": "follower"})
    await stand.config("service-resolver", "db", Subsets={"leader": {"Filter": "Checks.Output == leader"}})
    await subset_is(stand, "leader", ["v1"])
    before = await answers(stand, "leader")
    for port, version, output in ((first, "v1", "follower"), (second, "v2", "leader")):
        await stand.register("db", port, node=version, meta={"version": version}, check_output=output)
    await subset_is(stand, "leader", ["v2"])
    return {"before": before, "after": await answers(stand, "leader")}


@conformance(
    TOPIC,
    "A Filter on a field that does not exist, which Consul stores all the same, harms its own subset only",
    envoy={"another subset": ["refused"], "a service linked later": "refused", "named by status": False},
    ours={"another subset": ["v1"], "a service linked later": "echo", "named by status": True},
    decision="004",
    own_consul={},
)
async def test_filter_of_nonsense(stand: Stand) -> Observation:
    await versions(stand)
    nonsense = {"Filter": "Service.Colour == blue"}
    await stand.config("service-resolver", "db", Subsets={"blue": nonsense, **VERSIONS})
    backend = await stand.backend()
    await stand.register("other", backend.port, node="other")
    await stand.intention("web", "other")
    await stand.link("other")
    await stand.settled()
    return {
        "another subset": await answers(stand, "v1"),
        "a service linked later": await stand.outcome(service="other"),
        "named by status": await named_by_status(stand, "'blue'"),
    }


async def versions(stand: Stand, *, wait: bool = True, **fields: Mapping[str, Any]) -> list[int]:
    """Two instances of ``db`` that say their version, linked and allowed; their ports. ``fields`` are of one's
    registration."""
    ports = []
    for version in ("v1", "v2"):
        talker = await stand.talker(version)
        ports.append(talker.port)
        options = {"meta": {"version": version}, **fields.get(version, {})}
        await stand.register("db", talker.port, node=version, **options)
    await stand.intention("web", "db")
    await stand.link("db")
    if wait:
        await subset_is(stand, "", ["v1", "v2"])
    return ports


async def answers(stand: Stand, subset: str = "") -> list[str]:
    """Who answers to the name of a subset, each once."""
    return sorted(await stand.tally(_TALLY, subset=subset))


async def subset_is(stand: Stand, subset: str, wanted: list[str]) -> None:
    async def found() -> bool:
        return await answers(stand, subset) == wanted

    await eventually(found, 60.0, what=f"the subset {subset!r} is {wanted}")


@asynccontextmanager
async def unanswering() -> AsyncIterator[int]:
    """The port of a server whose queue is full: the kernel drops what asks for another connection."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port: int = listening.getsockname()[1]
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(("127.0.0.1", port))
        yield port


async def gives_up(stand: Stand, service: str) -> str:
    """After how long the gateway ends a connection to ``service``: 1 s or 5 s, as far as a busy machine can tell."""
    began_s = time.monotonic()
    with contextlib.suppress(Refused):
        async with stand.dial("web", service) as connection:
            await connection.send(b"?")
            await connection.ended()
    elapsed_s = time.monotonic() - began_s
    for about_s, longest_s in ((1, 4.0), (5, 12.0)):
        if about_s <= elapsed_s < longest_s:
            return f"after {about_s} s"
    return f"after {elapsed_s:.1f} s"


async def named_by_status(stand: Stand, text: str) -> bool:
    """Whether the gateway itself says what is wrong with ``text`` of ``db``; Envoy has nowhere to say it."""
    if not isinstance(stand.gateway, Gateway):
        return False
    services = (await stand.gateway.status())["services"]
    return any(text in warning for one in services if one["name"] == stand.named("db") for warning in one["warnings"])
