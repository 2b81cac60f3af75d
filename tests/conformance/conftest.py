"""A Consul with both gateways for the cases, and the page that they make."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.conformance import report
from tests.conformance.case import TABLE
from tests.conformance.stand import Stands


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance-page", type=Path, help="write the table of all cases to this file")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--conformance-page", default=None)
    if path is not None:
        path.write_text(report.page(TABLE.rows))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stands(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stands]:
    """For all cases: default deny. Do not write what changes the whole mesh."""
    async with Stands(tmp_path_factory.mktemp("conformance")) as shared:
        yield shared


@pytest_asyncio.fixture(loop_scope="session")
async def own_stands(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[..., Awaitable[Stands]]]:
    """For one case alone, with the options of :class:`Stands`."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**options: Any) -> Stands:
            return await stack.enter_async_context(Stands(tmp_path_factory.mktemp("own"), **options))

        yield start
