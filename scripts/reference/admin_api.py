"""Every route of the admin API and the types of its answers, from the application and its structures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import msgspec

from plugin.admin.app import build_app
from plugin.admin.dashboard.model import Tick
from plugin.admin.explain_pages import add_explaining
from plugin.admin.operations_view import KillReport, KillRequest
from plugin.admin.simulate_pages import add_simulating
from plugin.admin.view import ConnectionList
from plugin.answers.certificates import CertificateList
from plugin.answers.status import Status
from plugin.answers.traffic import Traffic
from plugin.effective import Effective
from plugin.events.ring import EventPage
from plugin.explain.answer import Explanation, Recollected
from plugin.simulate.answer import Simulation
from scripts.reference.fields import described, in_json, name_of, structures_in
from scripts.reference.text import code, prose, table

_HEAD = """\
# Routes and types of the admin API

NOTICE
Where it is, who may ask it, and which token: [admin-api.md](../admin-api.md).

"""
ANSWERS: dict[str, tuple[type, ...]] = {
    "/api/certificates": (CertificateList,),
    "/api/config": (Effective,),
    "/api/connections": (ConnectionList,),
    "/api/connections/kill": (KillReport,),
    "/api/events": (EventPage,),
    "/api/explain": (Explanation,),
    "/api/recent": (Recollected,),
    "/api/simulate": (Simulation,),
    "/api/status": (Status,),
    "/api/stream": (Tick,),
    "/api/traffic": (Traffic,),
}
"""By path; the others answer with text, or with JSON that has no fixed form."""
BODIES: dict[str, tuple[type, ...]] = {"/api/connections/kill": (KillRequest,)}


def routes() -> Iterator[tuple[str, str, str]]:
    """Method, path, and what the handler says of itself."""
    nobody: Any = object()
    app = build_app(nobody, operations=nobody)
    add_explaining(app, nobody)
    add_simulating(app, nobody)
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource is not None:
            yield route.method, route.resource.canonical, inspect.getdoc(route.handler) or ""


def page() -> str:
    rows = [
        (code(f"{method} {path}"), prose(text).replace("|", "\\|"), _linked(BODIES, path), _linked(ANSWERS, path))
        for method, path, text in sorted(routes(), key=lambda one: one[1])
    ]
    text = _HEAD + table(("Route", "", "Body", "Answer"), rows)
    text += "Fields ending in `_s` are seconds, `_ms` milliseconds.\n\n"
    for kind in sorted(_reached(), key=name_of):
        rows_of_kind = [(code(name), in_json(type_), said) for name, type_, said in described(kind)]
        text += f"## {name_of(kind)}\n\n" + _about(kind) + table(("Field", "Type", ""), rows_of_kind)
    return text.rstrip() + "\n"


def _linked(kinds: dict[str, tuple[type, ...]], path: str) -> str:
    return ", ".join(in_json(kind) for kind in kinds.get(path, ()))


def _about(kind: type) -> str:
    own = kind.__dict__.get("__doc__") or ""
    text = prose(own) if not own.startswith(f"{kind.__name__}(") else ""
    if issubclass(kind, msgspec.Struct) and kind.__struct_config__.array_like:
        text += " Sent as a list of the values, in this order."
    return f"{text.strip()}\n\n" if text else ""


def _reached() -> set[type]:
    found: set[type] = set()
    waiting = [kind for kinds in (*ANSWERS.values(), *BODIES.values()) for kind in kinds]
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            waiting += [inner for _, type_, _ in described(kind) for inner in structures_in(type_)]
    return found
