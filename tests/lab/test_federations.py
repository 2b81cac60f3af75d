"""The lab's proofs where the datacenters are one federation, whose servers meet through mesh gateways.

With ``--all-federations`` (`make lab-all`) also where they meet on the WAN, and while parts of both are broken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from lab import topology
from lab.actors import DATABASE, HTTP, Actors
from lab.faults import FAULTS
from lab.lab import Lab
from lab.proofs import PROOFS
from lab.topology import Federation

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everything = metafunc.config.getoption("--all-federations", default=False)
    federations = [Federation.GATEWAYS, Federation.WAN] if everything else [Federation.GATEWAYS]
    metafunc.parametrize(
        "federated", federations, indirect=True, scope="module", ids=[one.value for one in federations]
    )
    metafunc.parametrize("name", [*PROOFS, *FAULTS] if everything else [*PROOFS])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def federated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Actors]:
    federation: Federation = request.param
    async with Lab(topology.load(), federation, tmp_path_factory.mktemp(federation.value)) as lab:
        yield Actors.of(lab.running())


async def test_it_holds(federated: Actors, name: str) -> None:
    """In order: they build on each other, and each says itself what has to hold."""
    if name in FAULTS:
        for service in (DATABASE, HTTP):
            await federated.allow(service)
            await federated.until_reached(service)
    await (PROOFS | FAULTS)[name](federated)
