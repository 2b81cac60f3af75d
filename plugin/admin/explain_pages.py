"""Pages that say why: ``/api/explain`` of a caller that may yet come, ``/api/recent`` of what has ended."""

from __future__ import annotations

from typing import Protocol

import msgspec
from aiohttp import web

from plugin.errors import ConfigError
from plugin.explain.answer import Explanation, Recollected
from plugin.explain.caller import service_name
from plugin.explain.request import Question, question
from proxy.messages import Recall

HEADER = "X-Asked-Header"
"""``name: value`` of the request that is asked about; may be repeated. Not in the URL: values may be tokens."""
MOST_RECORDS = 1_000


class Explaining(Protocol):
    async def explain(self, asked: Question) -> Explanation:
        """:raises ConfigError: when the question names nobody or nothing."""
        ...

    async def recent(self, asked: Recall, worker: int | None) -> Recollected:
        """``worker`` is the index of the one that is asked; ``None``: all."""
        ...


def add_explaining(app: web.Application, explaining: Explaining) -> None:
    pages = _Pages(explaining)
    app.router.add_get("/api/explain", pages.explain)
    app.router.add_get("/api/recent", pages.recent)


class _Pages:
    def __init__(self, explaining: Explaining) -> None:
        self._explaining = explaining

    async def explain(self, request: web.Request) -> web.Response:
        """``?source=&destination=``, for services of layer 7 also ``&method=&path=`` and headers ``X-Asked-Header``."""
        query = request.query
        try:
            asked = question(
                query.get("source", ""),
                query.get("destination", ""),
                query.get("method", ""),
                query.get("path", ""),
                request.headers.getall(HEADER, []),
            )
            answer = await self._explaining.explain(asked)
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def recent(self, request: web.Request) -> web.Response:
        """``?worker=&number=`` of one connection, ``?service=``, ``?allowed=no`` for what was refused, ``?limit=``."""
        query = request.query
        try:
            service = query.get("service", "")
            asked = Recall(
                0,
                number=_number(query.get("number", "0"), "number"),
                service=service_name(service) if service else None,
                allowed=query.get("allowed", "yes") != "no",
                limit=min(MOST_RECORDS, _number(query.get("limit", "100"), "limit")),
            )
            worker = _number(query["worker"], "worker") if "worker" in query else None
            answer = await self._explaining.recent(asked, worker)
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ConfigError(f"{what} must be a number")
    return int(text)
