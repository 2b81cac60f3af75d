"""Who does something in the lab: the operator of a datacenter, the application, and the gateways that are asked.

Each works on its host with what is there for people too: `consul`, `psql`, `curl`, `consul-tgw`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab import plan
from lab.lab import Running
from lab.namespaces import Inside
from lab.programs import SECRETS
from lab.topology import Federation, Role
from plugin.dev.processes import wait_until
from plugin.errors import StartError

DATABASE, HTTP, APPLICATION = "billing-db", "legacy-http", "web"
_SLEEP = "select pg_sleep(600)"


@dataclass(frozen=True, slots=True)
class Operator:
    """Has the management token of a datacenter."""

    host: Inside

    async def consul(self, *arguments: str, input_text: str = "") -> str:
        """What Consul's own command prints. :raises StartError:"""
        token = f'export CONSUL_HTTP_TOKEN=$(<{SECRETS}/management.token); exec consul "$@"'
        return await self.host.run("bash", "-c", token, "consul", *arguments, input_text=input_text)

    async def ask(self, path: str) -> Any:
        """The answer of Consul's API. :raises StartError:"""
        script = f'curl -sSf -m 10 -H "X-Consul-Token: $(<{SECRETS}/management.token)" "http://127.0.0.1:8500$1"'
        return json.loads(await self.host.run("bash", "-c", script, "curl", path))

    async def trust_domain(self) -> str:
        domain: str = (await self.ask("/v1/connect/ca/roots"))["TrustDomain"]
        return domain


@dataclass(frozen=True, slots=True)
class Application:
    """web, which reaches both services on its own loopback, through its sidecar."""

    host: Inside

    async def sql(self, statement: str, deadline_s: float = 30.0) -> str:
        """What the database answers, bare values. :raises StartError: when it is not reached, or refuses."""
        command = ("psql", "--no-psqlrc", "-qtA", "-h", "127.0.0.1", "-U", "app", "-d", "postgres", "-c", statement)
        environment = {"PGCONNECT_TIMEOUT": "10", "PGSSLMODE": "disable"}
        return (await self.host.run(*command, environment=environment, deadline_s=deadline_s)).strip()

    async def query_that_stays(self) -> None:
        """Returns only with an error: when its connection ends. :raises StartError:"""
        await self.sql(_SLEEP, deadline_s=600.0)

    async def http(self, path: str = "/", *headers: str) -> str:
        """The body of the answer to one request on a connection of its own. :raises StartError:"""
        more = [word for header in headers for word in ("-H", header)]
        return await self.host.run("curl", "-sSf", "-m", "10", *more, f"http://127.0.0.1:8080{path}")

    async def http_status(self, path: str, *headers: str) -> str:
        """The status of the answer; ``000`` when there is none."""
        more = [word for header in headers for word in ("-H", header)]
        script = 'curl -s -m 10 -o /dev/null -w "%{http_code}" "$@" || true'
        return await self.host.run("bash", "-c", script, "curl", *more, f"http://127.0.0.1:8080{path}")

    async def reaches(self, service: str) -> bool:
        try:
            await (self.sql("select 1") if service == DATABASE else self.http())
        except StartError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Gateway:
    """One instance of the terminating gateway, asked on its host."""

    host: Inside

    async def ask(self, *arguments: str) -> Any:
        """What a command of `consul-tgw` prints as JSON. :raises StartError:"""
        return json.loads(await self.host.run("consul-tgw", *arguments, "--json", "--runtime-dir", "/run/consul-tgw"))

    async def connections(self, service: str) -> list[dict[str, Any]]:
        """Live ones."""
        rows: list[dict[str, Any]] = (await self.ask("connections", "--service", service))["connections"]
        return rows

    async def records(self, log: str) -> list[dict[str, Any]]:
        """Of its ``access`` or ``audit`` log, all of them."""
        lines = await self.host.run("cat", f"/var/log/consul-tgw/{log}.log")
        return [json.loads(line) for line in lines.splitlines()]


@dataclass(frozen=True, slots=True)
class Actors:
    running: Running
    here: Operator
    """Of the datacenter with the gateways."""
    there: Operator
    """Of the callers' datacenter."""
    application: Application
    gateways: tuple[Gateway, ...]

    @staticmethod
    def of(running: Running) -> Actors:
        topology = running.topology
        datacenter = plan.gateway_datacenter(topology)
        operators = {name: Operator(running.hosts[host]) for name, host in plan.operators(topology).items()}
        return Actors(
            running=running,
            here=operators[datacenter],
            there=operators[topology.peer_of(datacenter)],
            application=Application(running.hosts[topology.having(Role.APPLICATION)[0]]),
            gateways=tuple(Gateway(running.hosts[name]) for name in topology.having(Role.TERMINATING_GATEWAY)),
        )

    @property
    def datacenter(self) -> str:
        """Where the gateways are."""
        return plan.gateway_datacenter(self.running.topology)

    @property
    def callers_datacenter(self) -> str:
        return self.running.topology.peer_of(self.datacenter)

    async def callers_trust_domain(self) -> str:
        return await self.there.trust_domain()

    async def identity(self, caller: str) -> str:
        """Of a service of the callers' datacenter, as its certificate has it."""
        return f"spiffe://{await self.callers_trust_domain()}/ns/default/dc/{self.callers_datacenter}/svc/{caller}"

    async def allow(self, service: str, caller: str = APPLICATION) -> None:
        """Write the intention that lets the caller in, and nobody else."""
        await self._intention(service, caller, "allow")

    async def deny(self, service: str, caller: str = APPLICATION) -> None:
        await self._intention(service, caller, "deny")

    async def _intention(self, service: str, caller: str, action: str) -> None:
        peered = self.running.federation is Federation.PEERING
        source = {"Name": caller, "Action": action} | ({"Peer": self.callers_datacenter} if peered else {})
        entry = {"Kind": "service-intentions", "Name": service, "Sources": [source]}
        operator = self.here if peered else self._primary()
        await operator.consul("config", "write", "-", input_text=json.dumps(entry))

    async def forget(self, service: str) -> None:
        """Take the intention away: nobody is let in."""
        operator = self.here if self.running.federation is Federation.PEERING else self._primary()
        await operator.consul("config", "delete", "-kind", "service-intentions", "-name", service)

    def _primary(self) -> Operator:
        """Config entries of a federation are those of its first datacenter."""
        first = next(iter(self.running.topology.datacenters))
        return self.there if first == self.callers_datacenter else self.here

    async def until_reached(self, service: str, deadline_s: float = 60.0) -> None:
        """:raises StartError: when that takes longer."""
        await wait_until(
            lambda: self.application.reaches(service), deadline_s, what=f"web reaches {service}", every_s=0.2
        )

    async def until_refused(self, service: str, deadline_s: float = 60.0) -> None:
        async def refused() -> bool:
            return not await self.application.reaches(service)

        await wait_until(refused, deadline_s, what=f"web is refused by {service}", every_s=0.2)
