"""The lab, brought up once for all tests of it: they run in the order of the file, and put back what they change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab import topology
from lab.actors import Actors
from lab.lab import Lab
from lab.topology import Federation


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-federations", action="store_true", help="each federation, and everything in each")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def peering_lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """Two clusters that are peered; nobody is let in by anything yet."""
    async with Lab(topology.load(), Federation.PEERING, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def actors(peering_lab: Lab) -> Actors:
    return Actors.of(peering_lab.running())
