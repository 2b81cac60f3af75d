"""What the tests of a single worker share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.mesh import HandMadeMesh
from tests.support.worker import WorkerProcess, running_worker


@pytest.fixture
def mesh() -> HandMadeMesh:
    return HandMadeMesh()


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    async with running_worker() as running:
        yield running
