"""Ending live connections for an operator, in all workers."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable

from plugin.admin.operations_view import KillReport, KillRequest
from plugin.admin.view import WorkerConnection, shown
from plugin.errors import ConfigError
from plugin.workers.worker import Worker, WorkerGone
from proxy.logs import emit

logger = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 5.0
MOST_REASON = 200
"""Characters."""


async def kill(workers: Iterable[Worker], wanted: KillRequest) -> KillReport:
    """:raises ConfigError: when it names nothing, or more than one connection by one ID."""
    if not (wanted.id or wanted.service or wanted.source):
        raise ConfigError("say which connections: an id, a service or a source")
    index, number = connection_id(wanted.id) if wanted.id else (-1, 0)
    reason = printable_reason(wanted.reason)
    meant = [one for one in workers if index in (-1, one.index) and wanted.pid in (0, one.pid) and one.connected]
    if wanted.id and len(meant) > 1:
        pids = ", ".join(str(one.pid) for one in meant)
        raise ConfigError(
            f"worker {index} is being replaced, and both processes may have a connection {wanted.id}: name the process"
            f" too, one of {pids}"
        )
    detail = f"ended by an operator: {reason}" if reason else "ended by an operator"
    ended: list[WorkerConnection] = []
    problems: list[str] = []
    for outcome in await asyncio.gather(*(_kill_in(one, wanted, number, detail) for one in meant)):
        if isinstance(outcome, str):
            problems.append(outcome)
        else:
            ended += outcome
    _log(ended, reason)
    return KillReport(tuple(ended), tuple(problems))


async def _kill_in(worker: Worker, wanted: KillRequest, number: int, detail: str) -> list[WorkerConnection] | str:
    """What it has ended, or why it has not."""
    try:
        page = await worker.kill(
            number=number, service=wanted.service, source=wanted.source, detail=detail, deadline_s=ANSWER_TIMEOUT_S
        )
    except WorkerGone as gone:
        return str(gone)
    return shown(worker, page)


def connection_id(text: str) -> tuple[int, int]:
    """Worker and number. :raises ConfigError: when it is not ``WORKER-NUMBER``."""
    worker, _, number = text.partition("-")
    if not (worker.isdecimal() and number.isdecimal() and len(text) < 32 and int(number)):
        raise ConfigError(f"{text!r} is no connection: write WORKER-NUMBER as `connections` shows it, for example 0-17")
    return int(worker), int(number)


def printable_reason(text: str) -> str:
    """:raises ConfigError: when it would break the lines that it is written into."""
    text = text.strip()
    if len(text) > MOST_REASON or not text.isprintable():
        raise ConfigError(f"the reason must be one line of at most {MOST_REASON} printable characters")
    return text


def _log(ended: list[WorkerConnection], reason: str) -> None:
    told = f": {reason}" if reason else ", without a reason"
    for service, number in Counter(one.connection.service for one in ended).items():
        what = f"of the connections of {service}" if service else "connections without a service"
        message = f"an operator has ended {number} {what}{told}"
        emit(logger, logging.WARNING, "connections.killed", message, service=service, count=number, reason=reason)
