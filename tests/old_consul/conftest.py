"""Agents of Consul 1.8. A missing program fails the tests and names the remedy; nothing is skipped."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from plugin.dev.external import ExternalService, echo
from tests.support.old_consul_agent import OldConsulAgent


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def old_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OldConsulAgent]:
    """With ACLs and the default policy ``deny``, for all tests: use names of your own."""
    async with OldConsulAgent(tmp_path_factory.mktemp("old-consul"), acl=True) as agent:
        yield agent


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    """An echo service, for all tests."""
    async with ExternalService(echo) as service:
        yield service
