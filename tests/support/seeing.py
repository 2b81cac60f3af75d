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
    host: str
    caller: str
    """``x-forwarded-client-cert``: what only the gateway writes."""
    complete: bool
    """Its end was seen, and it was not refused (400, 405)."""


class SeeingServer(Protocol):
    def sights(self) -> list[Sight]:
        """All so far."""


class SightLog:
    """Lines of JSON that a server writes; text stands for bytes of Latin-1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._sights: list[Sight] = []

    def sights(self) -> list[Sight]:
        """All so far; a line that is still being written is left for later."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self._read)
                whole = log.read().rpartition(b"\n")[0]
            if whole:
                self._read += len(whole) + 1
                self._sights += [_sight(json.loads(line)) for line in whole.decode("latin-1").split("\n")]
        return self._sights


def _sight(seen: dict[str, str]) -> Sight:
    body = seen.get("body")
    return Sight(
        method=seen["method"],
        target=seen["target"],
        path=seen["path"],
        host=seen["host"],
        caller=seen["caller"],
        body=None if body is None else body.encode("latin-1"),
        complete=seen["completed"] == "OK" and seen["status"] not in ("400", "405"),
    )
