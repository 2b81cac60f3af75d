"""What keeps working while parts of the lab are broken. vagrant/README.md has what was measured."""

from __future__ import annotations

import pytest

from lab.actors import DATABASE, HTTP, Actors
from lab.faults import FAULTS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault(actors: Actors, fault: str) -> None:
    """Each says itself what has to hold."""
    for service in (DATABASE, HTTP):
        await actors.allow(service)
    for service in (DATABASE, HTTP):
        await actors.until_reached(service)
    await FAULTS[fault](actors)
