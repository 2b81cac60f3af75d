"""Real parts that tests share. A part that is missing fails the test and names the remedy; nothing is skipped."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.postgres import Postgres
from plugin.dev.processes import Child
from tests.support.secrecy import OUTPUT

LAST = "test_nothing_secret_is_printed.py"
"""Looks at the output of all the tests before it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name == LAST)


@pytest.fixture(scope="session", autouse=True)
def everything_printed_is_read() -> Iterator[None]:
    """Let :data:`OUTPUT` know each program of ours that is started, and each token that is made."""
    start_child, start_agent, make_token = Child.__init__, ConsulAgent.__init__, ConsulAgent.create_token
    make_gateway = Gateway.__init__

    def child(self: Child, name: str, command: Sequence[str], log_path: Path, **options: Any) -> None:
        OUTPUT.learn_environment(options.get("environment") or {})
        log_path.touch()
        if "plugin" in command or "consul-tgw" in " ".join(command):
            OUTPUT.follow(name, log_path)
        start_child(self, name, command, log_path, **options)

    def agent(self: ConsulAgent, *arguments: Any, **options: Any) -> None:
        start_agent(self, *arguments, **options)
        OUTPUT.learn(self.management_token)

    async def token(self: ConsulAgent, *arguments: Any, **options: Any) -> str:
        made = await make_token(self, *arguments, **options)
        OUTPUT.learn(made)
        return made

    def gateway(self: Gateway, *arguments: Any, **options: Any) -> None:
        make_gateway(self, *arguments, **options)
        OUTPUT.follow_later(f"the access log of {self.name}", self.access_log_path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Child, "__init__", child)
        patch.setattr(ConsulAgent, "__init__", agent)
        patch.setattr(ConsulAgent, "create_token", token)
        patch.setattr(Gateway, "__init__", gateway)
        yield


@pytest.fixture(autouse=True)
def nothing_secret_is_printed(everything_printed_is_read: None) -> Iterator[None]:
    """Fails the test during which a program of ours has printed a private key or a token."""
    yield
    assert OUTPUT.check() == []


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
