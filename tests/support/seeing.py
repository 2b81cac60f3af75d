"""What a server outside the mesh sees, told by the server itself: method, path and body of each request, in order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sight:
    """One request, as one server understood it."""

    method: str
    target: str
    """As in the request line."""
    path: str
    """What it would open: decoded, and in whatever form it brings paths into."""
    body: bytes | None
    """``None``: it did not look."""
    complete: bool
    """Its end was seen, and it was not refused (400, 405)."""


class SeeingServer(Protocol):
    port: int

    def sights(self) -> list[Sight]:
        """All so far."""


def read(log: Path) -> list[Sight]:
    """Lines of JSON; text stands for bytes of Latin-1. One that is still being written is left for later."""
    lines = log.read_bytes().decode("latin-1").split("\n")[:-1] if log.exists() else []
    return [_sight(json.loads(line)) for line in lines]


def _sight(seen: dict[str, str]) -> Sight:
    body = seen.get("body")
    return Sight(
        method=seen["method"],
        target=seen["target"],
        path=seen["path"],
        body=None if body is None else body.encode("latin-1"),
        complete=seen["completed"] == "OK" and seen["status"] not in ("400", "405"),
    )
