from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from plugin.addresses import HostPort
from plugin.admin.app import AdminServer, build_app
from plugin.admin.metrics import GatewayCollector, exposition
from plugin.admin.view import ConnectionList
from plugin.errors import ConfigError, StartError
from plugin.status import RegistrationStatus, ServiceStatus, Status, WatchStatus, WorkerStatus
from plugin.workers.counters import Dials, Sum, Totals

READY = Status(
    service="gw",
    service_id="gw-1",
    address="10.0.0.5:8443",
    version="1",
    pid=1,
    started_at_s=1.0,
    ready=True,
    not_ready=(),
    generation=7,
    datacenter="dc1",
    trust_domain="x.consul",
    default_action="deny",
    registration=RegistrationStatus(wanted=True, registered=True, check="passing"),
    services=(
        ServiceStatus(name="legacy", served=True, leaf_expires_at_s=9e9),
        ServiceStatus(name="broken", served=False, reasons=("no CAFile",)),
    ),
    workers=(
        WorkerStatus(index=0, pid=2, generation=7, adopted=False, draining=False, connected=True, started_at_s=1.0),
    ),
    watches=(
        WatchStatus(name="roots", known=True, age_s=3.0, problem="away"),
        WatchStatus(name="mesh", known=True, age_s=3.0, note="no such kind here"),
    ),
    consul_version="1.8.7",
    worker_restarts=4,
)
TOTALS = Totals(
    sums={
        ("legacy", "web", ""): Sum(2, 10, 20),
        ("legacy", "web", "client_eof"): Sum(5, 100, 200),
        ("", "", "no_certificate"): Sum(3),
    },
    accepted=10,
    dials={"legacy": Dials(6, 2, 1)},
)


@dataclass
class View:
    """The seam's other side, with fixed answers."""

    shown: Status = READY
    asked: list[tuple[str, int]] = field(default_factory=list)

    def status(self) -> Status:
        return self.shown

    def totals(self) -> Totals:
        return TOTALS

    async def connections(self, after: str, limit: int) -> ConnectionList:
        if after == "junk":
            raise ConfigError("after='junk' is not ours")
        self.asked.append((after, limit))
        return ConnectionList((), "")

    def snapshot(self) -> bytes:
        return b'{"generation": 7}'


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
async def client(view: View) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(build_app(view))) as started:
        yield started


Client = TestClient[web.Request, web.Application]


async def test_health_says_that_the_process_lives(client: Client) -> None:
    answer = await client.get("/health")
    assert (answer.status, await answer.text()) == (200, "alive\n")


async def test_ready_names_what_is_lacking(client: Client, view: View) -> None:
    assert (await client.get("/ready")).status == 200
    view.shown = msgspec.structs.replace(READY, ready=False, not_ready=("roots are unknown",))
    answer = await client.get("/ready")
    assert (answer.status, await answer.text()) == (503, "roots are unknown\n")


async def test_status_can_be_decoded_as_what_it_is(client: Client) -> None:
    answer = await client.get("/api/status")
    assert msgspec.json.decode(await answer.read(), type=Status) == READY
    assert answer.headers["Cache-Control"] == "no-store"


async def test_connections_are_paged(client: Client, view: View) -> None:
    assert (await client.get("/api/connections?after=2:5&limit=99999999")).status == 200
    assert view.asked == [("2:5", 10_000)]
    assert (await client.get("/api/connections?limit=many")).status == 400
    answer = await client.get("/api/connections?after=junk")
    assert (answer.status, await answer.text()) == (400, "after='junk' is not ours\n")


async def test_the_snapshot_is_passed_on(client: Client) -> None:
    assert json.loads(await (await client.get("/api/snapshot")).read()) == {"generation": 7}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:19090", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
async def test_a_page_that_rebinds_its_name_is_refused(client: Client, host: str) -> None:
    assert (await client.get("/api/status", headers={"Host": host})).status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:19090", "[::1]:19090", "10.0.0.5:1"]
)
async def test_local_names_and_addresses_are_served(client: Client, host: str) -> None:
    assert (await client.get("/health", headers={"Host": host})).status == 200


async def test_metrics_are_labelled_sums(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.content_type == "text/plain"
    lines = (await answer.text()).splitlines()
    for expected in (
        'consul_tgw_connections_open{service="legacy",source="web"} 2.0',
        'consul_tgw_connections_closed_total{reason="client_eof",service="legacy",source="web"} 5.0',
        'consul_tgw_received_bytes_total{service="legacy",source="web"} 110.0',
        'consul_tgw_handshakes_refused_total{reason="no_certificate"} 3.0',
        'consul_tgw_handshakes_refused_total{reason="not_tls"} 0.0',
        'consul_tgw_services{state="unserved"} 1.0',
        'consul_tgw_service_problems{service="broken"} 1.0',
        'consul_tgw_watch_problem{watch="roots"} 1.0',
        'consul_tgw_dial_failures_total{service="legacy"} 6.0',
        'consul_tgw_endpoint_ejections_total{service="legacy"} 2.0',
        'consul_tgw_dial_shortages_total{service="legacy"} 1.0',
        'consul_tgw_dial_failures_total{service="broken"} 0.0',
        "consul_tgw_worker_restarts_total 4.0",
        "consul_tgw_generation 7.0",
        "consul_tgw_ready 1.0",
    ):
        assert expected in lines
    expiry = [line for line in lines if line.startswith('consul_tgw_leaf_expiry_seconds{service="legacy"}')]
    assert float(expiry[0].split()[-1]) > 1e8


def test_the_exposition_can_be_asked_for_again(view: View) -> None:
    collector = GatewayCollector(view)
    assert exposition(collector).count(b"# TYPE") == exposition(collector).count(b"# TYPE")


async def test_a_taken_port_is_passed_over_unless_it_was_chosen(view: View) -> None:
    first, second, third = (AdminServer(build_app(view)) for _ in range(3))
    taken = await first.start(HostPort("127.0.0.1", 0), chosen=True)
    try:
        found = await second.start(taken, chosen=False)
        assert found.port > taken.port
        with pytest.raises(StartError, match="--admin-address"):
            await third.start(taken, chosen=True)
    finally:
        for server in (first, second, third):
            await server.stop()
