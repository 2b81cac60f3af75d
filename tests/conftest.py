"""Real parts that tests share. A part that is missing fails the test and names the remedy; nothing is skipped."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres

AgentFactory = Callable[..., Awaitable[ConsulAgent]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def consul_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConsulAgent]:
    """An agent without ACLs for all tests: use names of your own, and do not stop or reconfigure it."""
    async with ConsulAgent(tmp_path_factory.mktemp("consul")) as agent:
        yield agent


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def acl_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConsulAgent]:
    """As ``consul_agent``, with ACLs and the default policy ``deny``."""
    async with ConsulAgent(tmp_path_factory.mktemp("consul-acl"), acl=True) as agent:
        yield agent


@pytest_asyncio.fixture
async def start_agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentFactory]:
    """Starts agents for one test alone: ``await start_agent(persistent=True)``."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**options: Any) -> ConsulAgent:
            return await stack.enter_async_context(ConsulAgent(tmp_path_factory.mktemp("agent"), **options))

        yield start


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[Postgres]:
    """A cluster that asks for a password, for all tests: use tables of your own."""
    async with Postgres(password="correct horse") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The private CA of the external services."""
    return Authority("External CA")


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    """A folder for one test."""
    return tmp_path
