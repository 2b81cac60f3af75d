"""The compiled load generator, built from source and run against its own services, without a gateway between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bench import generator as generators
from bench.generator import Aim, Generator
from plugin.dev.processes import run
from plugin.errors import StartError
from scripts.build_consul import find_go

SOURCE = Path(generators.__file__).parent / "loadgen"

pytestmark = pytest.mark.timeout(300)


@pytest_asyncio.fixture
async def generator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Generator]:
    yield await Generator.build(tmp_path_factory.mktemp("generator"), frozenset(os.sched_getaffinity(0)))


def gofmt() -> Path:
    return Path(find_go()).resolve().with_name("gofmt")


async def test_its_source_is_formatted() -> None:
    assert await run([str(await asyncio.to_thread(gofmt)), "-l", str(SOURCE)]) == ""


async def test_workloads_do_what_they_say_and_clocks_are_read_around_them(generator: Generator) -> None:
    ticks = iter(range(100))
    async with generator.external_services() as ports:
        for command, behaviour, connections in (
            *(("echo", "echo", 16), ("bulk-down", "source", 2), ("bulk-up", "sink", 2), ("duplex", "duplex", 1)),
            ("new-connections", "echo", 4),
        ):
            result, used = await generator.load(
                command,
                Aim(address=f"127.0.0.1:{ports[behaviour]}", secure=None),
                duration_s=0.2,
                connections=connections,
                clock=lambda: float(next(ticks)),
            )
            assert used == 1.0, command
            assert result.operations >= connections, command
            assert result.seconds >= 0.2, command
            assert 0 < result.p50_us <= result.p99_us, command
            assert result.bytes > 0, command


async def test_sizes_are_sizes(generator: Generator) -> None:
    async with generator.external_services() as ports:
        aim = Aim(address=f"127.0.0.1:{ports['echo']}", secure=None)
        result, _ = await generator.load("echo", aim, duration_s=0.1, flags=("-size=65536",))
        assert result.bytes == result.operations * 65536


async def test_requests_that_no_gateway_has_seen_are_an_error(generator: Generator) -> None:
    async with generator.external_services() as ports:
        for command, behaviour in (("http1", "http"), ("http2", "http2"), ("grpc-unary", "grpc")):
            aim = Aim(address=f"127.0.0.1:{ports[behaviour]}", secure=None)
            with pytest.raises(StartError, match=r"502|the gateway did not see"):
                await generator.load(command, aim, duration_s=0.1)


async def test_a_service_that_is_not_there_is_an_error(generator: Generator) -> None:
    with pytest.raises(StartError, match="refused"):
        await generator.load("echo", Aim(address="127.0.0.1:1", secure=None), duration_s=0.1)
