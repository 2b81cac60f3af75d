"""The documentation is followed as it is written, in a network of its own (:mod:`tests.support.reading_room`).

The recipes are followed in ``test_recipes.py``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.reading_room import ReadingRoom

pytestmark = pytest.mark.asyncio(loop_scope="session")

PAGES = (
    "README.md",
    "consul-config/README.md",
    "docs/commands.md",
    "docs/troubleshooting.md",
    "docs/operating.md",
    "docs/migration-from-envoy.md",
)
"""In this order: those of ``docs`` find a gateway that runs."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReadingRoom]:
    async with ReadingRoom(tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES)
async def test_the_page_is_followed(room: ReadingRoom, page: str) -> None:
    await room.follow(page)
