"""Services of layer 7 in a hand-made mesh."""

from __future__ import annotations

from typing import Any

from proxy.model import HTTPSettings, Service
from tests.support.mesh import HandMadeMesh, allow


def http_service(mesh: HandMadeMesh, *ports: int, **fields: Any) -> Service:
    fields.setdefault("http", HTTPSettings())
    fields.setdefault("intentions", (allow("web"),))
    fields.setdefault("protocol", "http")
    return mesh.service("db", *ports, **fields)
