"""How large the floods are, and where their figures go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full-floods", action="store_true", help="floods of full size, with the default limits")
    parser.addoption("--floods-report", type=Path, help="write the figures of all floods to this file, as JSON")


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> Iterator[list[dict[str, Any]]]:
    collected: list[dict[str, Any]] = []
    yield collected
    path = request.config.getoption("--floods-report", default=None)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(collected, indent=2) + "\n")
