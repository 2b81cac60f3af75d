"""A gateway that links ten thousand services by ``*``, on an agent that only answers: how far the gateway itself goes.

The agent is a fake that has every leaf already: the time that a real one takes to sign as many is left out, and so is
what Consul costs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from bench import accounting
from bench.scale.costs import cpu_ms
from bench.scale.fleet import INSTANCES, service
from plugin.consul import endpoints
from plugin.dev.pki import Authority
from plugin.dev.processes import Child, free_ports
from tests.support.fake_consul import FakeConsul

_GATEWAY = "many"
_TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
_DEADLINE_S = 300.0
_PROJECT = Path(__file__).resolve().parents[2]


@dataclass(slots=True, kw_only=True)
class ManyFigures:
    services: int
    ready_s: float
    cpu_s: float
    requests: int
    """That the agent had been asked by then."""
    connections: int
    """At the same time, at most."""
    memory_mib: dict[str, float]


class _Values(dict[str, Any]):
    """Answers by path; those about a single service are made when they are asked for."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._authority = Authority("scale")
        self._leaves: dict[str, dict[str, Any]] = {}
        names = [service(number) for number in range(count)]
        self.update(
            {
                endpoints.config("terminating-gateway"): [
                    {"Kind": "terminating-gateway", "Name": _GATEWAY, "Services": [{"Name": "*"}]}
                ],
                endpoints.gateway_services(_GATEWAY): [
                    {
                        "Gateway": {"Name": _GATEWAY},
                        "Service": {"Name": name},
                        "GatewayKind": "terminating-gateway",
                        "FromWildcard": True,
                    }
                    for name in names
                ],
                endpoints.ROOTS: {
                    "ActiveRootID": "root",
                    "TrustDomain": _TRUST_DOMAIN,
                    "Roots": [
                        {
                            "ID": "root",
                            "RootCert": self._authority.certificate_pem,
                            "Active": True,
                            "SigningKeyID": "",
                        }
                    ],
                },
                endpoints.CATALOG_SERVICES: {name: [] for name in names},
                endpoints.INTENTIONS: [],
                endpoints.INTENTIONS_MATCH: lambda request: dict.fromkeys(request.query.getall("name")),
                endpoints.AGENT_SELF: {
                    "Config": {"Datacenter": "dc1", "Version": "1.21.0"},
                    "DebugConfig": {"ACLsEnabled": False},
                },
                endpoints.REGISTER: None,
            }
        )
        for kind in ("service-defaults", "service-resolver", "proxy-defaults", "mesh", "jwt-provider"):
            self[endpoints.config(kind)] = []
        for state in ("critical", "warning"):
            self[endpoints.health_state(state)] = []

    def __contains__(self, path: object) -> bool:
        return super().__contains__(path) or str(path).startswith(("/v1/health/", "/v1/agent/"))

    def __missing__(self, path: str) -> Any:
        name = path.rpartition("/")[2]
        if path.startswith("/v1/health/service/"):
            return [_row(name, each) for each in range(INSTANCES)]
        if path == endpoints.leaf(name):
            return self._leaf(name)
        return []

    def _leaf(self, name: str) -> dict[str, Any]:
        found = self._leaves.get(name)
        if found is None:
            pair = self._authority.leaf(_TRUST_DOMAIN, name)
            found = self._leaves[name] = {
                "SerialNumber": "01",
                "CertPEM": pair.certificate_pem,
                "PrivateKeyPEM": pair.private_key_pem,
                "Service": name,
                "ServiceURI": f"spiffe://{_TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name}",
                "ValidAfter": "",
                "ValidBefore": "",
            }
        return found


def _row(name: str, each: int) -> dict[str, Any]:
    check = {"CheckID": f"check-{name}-{each}", "Status": "passing", "ServiceID": f"{name}-{each}"}
    return {
        "Node": {"Node": f"node-{each}", "Address": "127.0.0.1"},
        "Service": {"ID": f"{name}-{each}", "Service": name, "Address": "127.0.0.1", "Port": 9 + each},
        "Checks": [check],
    }


async def measure(count: int, folder: Path, progress: Callable[[str], None]) -> ManyFigures:
    """:raises StartError: when it is not ready in time."""
    progress(f"consul-tgw, {count:,} services by *, on an agent that only answers")
    port, admin_port = free_ports(2)
    async with FakeConsul() as agent:
        agent.values = _Values(count)
        agent.headers["X-Cache"] = "HIT"
        began_s = time.monotonic()
        child = _gateway(agent, folder, port, admin_port)
        try:
            await child.started(lambda: _is_ready(admin_port), _DEADLINE_S)
            ready_s = time.monotonic() - began_s
            family = accounting.family(child.pid)
            cpu_s, requests = cpu_ms(family) / 1000, len(agent.requests)
            workers = sorted(family - {child.pid})
            return ManyFigures(
                services=count,
                ready_s=ready_s,
                cpu_s=cpu_s,
                requests=requests,
                connections=agent.most_open,
                memory_mib={
                    "control process": accounting.memory([child.pid]).pss / 2**20,
                    "worker": accounting.memory(workers).pss / 2**20,
                },
            )
        finally:
            await child.terminate()


def _gateway(agent: FakeConsul, folder: Path, port: int, admin_port: int) -> Child:
    work_dir = folder / _GATEWAY
    (work_dir / "run").mkdir(parents=True, mode=0o700)
    return Child(
        f"gateway {_GATEWAY}",
        [
            *(sys.executable, "-m", "plugin", "run", f"--service={_GATEWAY}"),
            f"--address=127.0.0.1:{port}",
            f"--admin-address=127.0.0.1:{admin_port}",
            *("--workers=1", "--access-log=off", "--drain-delay=0", "--drain-timeout=1", "--drain-window=0"),
            f"--runtime-dir={work_dir / 'run'}",
        ],
        work_dir / "gateway.log",
        environment={"CONSUL_HTTP_ADDR": agent.address},
        folder=_PROJECT,
    )


async def _is_ready(admin_port: int) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin_port}/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
