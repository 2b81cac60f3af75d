"""A running gateway exposes what alerts and dashboard ask for, and counts what they are about."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from tests.support.eventually import eventually
from tests.support.linking import Links, kept_out, sample, serves
from tests.support.mesh_client import MeshClient
from tests.support.promql import Selector, used
from tests.unit.plugin.admin.test_metrics import alert_rules, panel_expressions

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICE, CLIENT = "watched-gateway", "watched-db", "watched-client"


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    client: MeshClient


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("monitoring")
    async with ExternalService(echo) as backend:
        await Links(consul_agent, GATEWAY).add(SERVICE, backend.port)
        await consul_agent.write_intention(CLIENT, SERVICE, "deny")
        async with Gateway(consul_agent, folder, GATEWAY) as gateway:
            await serves(gateway, SERVICE)
            yield Stage(agent=consul_agent, gateway=gateway, client=await MeshClient.of(consul_agent, CLIENT))


def chosen(selector: Selector, families: list[Metric]) -> bool:
    """Some sample is of that metric and has those labels; Grafana's variables stand for all."""
    for family in families:
        for one in family.samples:
            wanted = [match for match in selector.matchers if "$" not in match[2] and match[0] != "instance"]
            if one.name == selector.metric and all(
                _matches(one.labels.get(label, ""), op, v) for label, op, v in wanted
            ):
                return True
    return False


def _matches(value: str, operator: str, wanted: str) -> bool:
    same = re.fullmatch(wanted, value) is not None if "~" in operator else value == wanted
    return same is not operator.startswith("!")


async def test_every_alert_has_its_series(stage: Stage) -> None:
    async def registered() -> bool:
        return sample(await stage.gateway.metrics(), "consul_tgw_passing") == 1

    await eventually(registered, what="the gateway is passing")
    families = list(parse_text(await stage.gateway.metrics()))
    for rule in alert_rules():
        for selector in used(rule["expr"]).selectors:
            assert chosen(selector, families), (rule["alert"], selector)


async def test_what_is_denied_is_counted(stage: Stage) -> None:
    before = sample(await stage.gateway.metrics(), "consul_tgw_denials_total", service=SERVICE)
    await kept_out(stage.client, stage.gateway, SERVICE)

    async def counted() -> bool:
        return sample(await stage.gateway.metrics(), "consul_tgw_denials_total", service=SERVICE) > before

    await eventually(counted, what="the denial is counted")
    families = list(parse_text(await stage.gateway.metrics()))
    # Once there was traffic, only requests are missing here: this service is one of layer 4.
    missing = {
        selector.metric
        for _, expression in panel_expressions()
        for selector in used(expression).selectors
        if not chosen(selector, families)
    }
    of_requests = {"consul_tgw_requests_total", "consul_tgw_request_duration_seconds_bucket"}
    assert missing <= of_requests | {"consul_tgw_connections_open"}


async def test_processes_tell_their_descriptors(stage: Stage) -> None:
    metrics = await stage.gateway.metrics()
    for process in ("control", "worker 0"):
        opened = sample(metrics, "consul_tgw_open_fds", process=process)
        assert 5 < opened < sample(metrics, "consul_tgw_max_fds", process=process)
    [pid] = stage.gateway.worker_pids()
    try:
        real = len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:  # its memory is hidden: only root may look
        return
    assert abs(sample(metrics, "consul_tgw_open_fds", process="worker 0") - real) <= 3


async def test_open_metrics_are_had_by_asking(stage: Stage) -> None:
    address = f"http://127.0.0.1:{stage.gateway.admin_port}/metrics"
    headers = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as answer:
        assert answer.content_type == "application/openmetrics-text"
        families = list(parse_open_metrics(await answer.text()))  # type: ignore[no-untyped-call]
    assert len(families) > 25
