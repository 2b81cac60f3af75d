"""Walks the path to one service by hand, part by part, each with its time.

Through the gateway as a sidecar would, with a leaf of the caller; and beside it to the external service, with what the
gateway trusts. To a service of tcp nothing is sent unless it is asked for: what a stray byte does there nobody knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from plugin.addresses import HostPort
from plugin.admin.view import ConnectionList
from plugin.consul import endpoints
from plugin.consul.api import LeafCertificate
from plugin.consul.client import ConsulClient
from plugin.errors import ConfigError, ConsulForbidden, GatewayError
from plugin.explain.answer import Explanation, Recollected, State, Verdict
from plugin.explain.caller import service_name
from plugin.probing import tls
from plugin.probing.answer import ProbeReport, ProbeStep
from plugin.probing.tls import Opened, ProbeFailed, dial, first_bytes, handshake
from plugin.settings import ConsulSettings
from proxy.messages import Update
from proxy.model import Endpoint, Mesh, Service

QUIET_S = 1.0
"""How long an opened connection is listened to: a refusal would have come by then."""
ANSWER_S = 15.0
MOST_ENDPOINTS = 5
Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    service: str
    source: str = ""
    method: str = "GET"
    path: str = ""
    """Empty: no request is made."""
    send: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class Probe:
    """``fetch`` asks the gateway's admin pages, ``listener`` is where it listens."""

    wish: Wish
    fetch: Fetch
    listener: HostPort
    explanation: Explanation | None
    update: Update
    consul: ConsulSettings
    steps: list[ProbeStep] = field(default_factory=list)

    async def run(self) -> ProbeReport:
        mesh, service = self.update.mesh, self._service()
        if mesh is None or service is None:
            why = self.explanation.sentence if self.explanation is not None else "the gateway does not serve it"
            self._add("service", State.BAD, why)
        else:
            await self._through(mesh, service)
            await self._beside(service)
        return ProbeReport(self.wish.service, self.wish.source, tuple(self.steps))

    def _service(self) -> Service | None:
        name = service_name(self.wish.service)
        return next((one for one in self.update.upserts if one.name == name), None)

    # --- through the gateway -----------------------------------------------------------------------------------

    async def _through(self, mesh: Mesh, service: Service) -> None:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.listener.host, self.listener.host)
        leaf = await self._leaf()
        try:
            opened = await dial(host, self.listener.port)
        except ProbeFailed as error:
            self._add("gateway", State.BAD, f"{self.listener} cannot be reached: {error}.")
            return
        async with opened:
            self._add("gateway", State.GOOD, f"{self.listener} accepts connections.", ms=opened.ms)
            if await self._mesh_tls(opened, mesh, service, leaf) and leaf is not None:
                self._verdict()
                await self._dialled(opened, service)

    async def _leaf(self) -> LeafCertificate | None:
        if not self.wish.source:
            self._add("caller", State.NOTE, "No --source: what needs a caller's certificate is not probed.")
            return None
        began_s = time.perf_counter()
        try:
            async with ConsulClient(self.consul) as client:
                name = service_name(self.wish.source)
                found = await client.get(endpoints.leaf(name.name), endpoints.tenancy(name), type=LeafCertificate)
        except ConsulForbidden as error:
            rule = f" It takes: {error.rule}" if error.rule else ""
            text = f"Consul gives this token no certificate of {self.wish.source}: {error}.{rule}"
            self._add("caller", State.NOTE, text, "What needs one is not probed.")
            return None
        except GatewayError as error:
            self._add("caller", State.NOTE, f"Consul gives no certificate of {self.wish.source}: {error}.")
            return None
        ms = round((time.perf_counter() - began_s) * 1_000, 2)
        self._add("caller", State.GOOD, f"Consul gave a certificate of {found.service_uri}.", ms=ms)
        return found

    async def _mesh_tls(self, opened: Opened, mesh: Mesh, service: Service, leaf: LeafCertificate | None) -> bool:
        sni = next((one.sni for one in service.server_names if not one.peer), "")
        context = tls.mesh_context(
            "".join(mesh.roots_pem), leaf.cert_pem if leaf is not None else "", leaf.private_key_pem if leaf else ""
        )
        try:
            ms = await handshake(opened, context, sni)
            certificate, version = tls.shown(opened)
        except ProbeFailed as error:
            self._add("mutual TLS", State.BAD, f"As {sni}: {error}.")
            return False
        lines = [f"{version} as {sni}.", *tls.told(certificate, time.time())]
        good = tls.names_of(certificate) == [service.leaf.spiffe_id]
        if not good:
            lines.append(f"That is not {service.leaf.spiffe_id}, whose leaf the gateway has.")
        self._add("mutual TLS", State.GOOD if good else State.BAD, *lines, ms=ms)
        return good

    def _verdict(self) -> None:
        if self.explanation is not None:
            good = self.explanation.verdict is Verdict.ALLOWED
            self._add("policy", State.GOOD if good else State.BAD, self.explanation.sentence)

    async def _dialled(self, opened: Opened, service: Service) -> None:
        """What the gateway does with the connection, and what the external service answers."""
        if service.http is not None:
            await self._request(opened, service)
            return
        local, began_s = opened.local, time.perf_counter()
        try:
            came = await first_bytes(opened, QUIET_S)
            if came is None and self.wish.send:
                opened.writer.write(self.wish.send)
                came = await first_bytes(opened, ANSWER_S)
        except ProbeFailed as error:
            await self._refused(local, str(error))
            return
        if came == b"":
            await self._refused(local, "it was ended without a byte")
            return
        ms = round((time.perf_counter() - began_s) * 1_000, 2) if came is not None else None
        where = await self._endpoint(local)
        if came is not None:
            self._add("first byte", State.GOOD, f"{len(came)} bytes came{where}.", ms=ms)
        elif self.wish.send:
            self._add("first byte", State.BAD, f"Nothing came back within {ANSWER_S:g} s{where}.")
        else:
            quiet = f"The connection stays open{where}. The service says nothing first; --send TEXT sends something."
            self._add("first byte", State.GOOD, quiet)

    async def _request(self, opened: Opened, service: Service) -> None:
        if not self.wish.path:
            self._add("first byte", State.NOTE, "No request was made; --path PATH makes one.")
            return
        local, began_s = opened.local, time.perf_counter()
        head = f"{self.wish.method} {self.wish.path} HTTP/1.1\r\nHost: {service.name.name}\r\n"
        opened.writer.write(f"{head}User-Agent: consul-tgw-probe\r\nConnection: close\r\n\r\n".encode())
        try:
            came = await first_bytes(opened, ANSWER_S)
        except ProbeFailed as error:
            await self._refused(local, str(error))
            return
        if not came:
            await self._refused(local, "no response came")
            return
        ms = round((time.perf_counter() - began_s) * 1_000, 2)
        line = came.partition(b"\r\n")[0].decode("latin-1")[:200]
        status = line.split(" ")[1] if line.startswith("HTTP/1.1 ") else ""
        bad = status in ("403", "401", "502", "503", "504") or not status.isdecimal()
        lines = [f"{self.wish.method} {self.wish.path} was answered: {line}."]
        lines += await self._remembered(local) if bad else []
        self._add("first byte", State.BAD if bad else State.GOOD, *lines, ms=ms)

    async def _refused(self, local: str, what: str) -> None:
        self._add("gateway dial", State.BAD, f"Of the connection: {what}.", *await self._remembered(local))

    async def _remembered(self, local: str) -> list[str]:
        """What the gateway says of it, once it has noted the end."""
        path = "/api/recent?limit=200&service=" + self.wish.service
        for _ in range(20):
            found = msgspec.json.decode(await self.fetch(path), type=Recollected)
            if mine := [one for one in found.records if one.client == local]:
                return [f"The gateway says: {one.reason}{': ' if one.detail else ''}{one.detail}." for one in mine[:3]]
            await asyncio.sleep(0.1)
        return []

    async def _endpoint(self, local: str) -> str:
        """Where the gateway has taken it."""
        after = ""
        while True:
            page = msgspec.json.decode(await self.fetch(f"/api/connections?after={after}"), type=ConnectionList)
            for one in page.connections:
                if one.connection.client == local and one.connection.endpoint:
                    return f", and goes to {one.connection.endpoint}"
            if not (after := page.next):
                return ""

    # --- beside it ---------------------------------------------------------------------------------------------

    async def _beside(self, service: Service) -> None:
        found = list(dict.fromkeys(each for name in service.server_names for each in name.endpoints))
        if not found:
            self._add("endpoint", State.BAD, "There is no endpoint.")
        for endpoint in found[:MOST_ENDPOINTS]:
            await self._external(service, endpoint)
        if len(found) > MOST_ENDPOINTS:
            self._add("endpoint", State.NOTE, f"{len(found) - MOST_ENDPOINTS} more endpoints were not dialled.")

    async def _external(self, service: Service, endpoint: Endpoint) -> None:
        try:
            opened = await dial(endpoint.address, endpoint.port)
        except ProbeFailed as error:
            # From here: the gateway, on another host, may reach it.
            self._add("endpoint", State.BAD, f"{endpoint} cannot be reached from here: {error}.")
            return
        async with opened:
            health = "" if endpoint.healthy else " Consul calls it unhealthy."
            self._add("endpoint", State.GOOD, f"{endpoint} accepts connections from here.{health}", ms=opened.ms)
            if service.upstream_tls is None:
                return
            name = service.upstream_tls.server_name
            context = tls.upstream_context(service.upstream_tls.ca_pem, names_matter=bool(name))
            try:
                ms = await handshake(opened, context, name)
                certificate, version = tls.shown(opened)
            except ProbeFailed as error:
                self._add("upstream TLS", State.BAD, f"{endpoint}: {error}.")
                return
            lines = [f"{version}{f' as {name}' if name else ''}.", *tls.told(certificate, time.time())]
            if service.upstream_tls.certificate_chain_pem:
                lines.append("The client certificate was not shown: its key stays with the gateway.")
            self._add("upstream TLS", State.GOOD, *lines, ms=ms)

    def _add(self, about: str, state: State, *lines: str, ms: float | None = None) -> None:
        self.steps.append(ProbeStep(about, state, lines, ms))


def read_update(body: bytes) -> Update:
    """Of ``/api/snapshot``. :raises ConfigError: when it is of another version."""
    try:
        return msgspec.json.decode(body, type=Update)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"the gateway is of another version than this command: {error}") from error
