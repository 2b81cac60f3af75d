"""What became of a connection, in sentences: from what the workers remember. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from plugin.errors import ConfigError
from plugin.explain.answer import PastRecord, Recollected
from plugin.spans import point
from proxy.messages import Connection

_MOST_REQUESTS = 20
_VERDICTS = {
    "allowed": "Policy let it in",
    "denied": "Policy denied it",
    "refused": "It was refused before policy was asked",
}


def connection_id(text: str) -> tuple[int, int]:
    """Worker and number. :raises ConfigError: when it is not ``WORKER-NUMBER``."""
    worker, _, number = text.partition("-")
    if not (text.isascii() and worker.isdecimal() and number.isdecimal() and len(text) < 32 and int(number)):
        raise ConfigError(
            f"{text!r} is no connection: write WORKER-NUMBER, for example 0-17, as `consul-tgw connections` shows it"
        )
    return int(worker), int(number)


def told(connection: str, found: Recollected) -> Iterator[str]:
    """Lines about everything that is remembered of it, the newest first."""
    for problem in found.problems:
        yield f"{problem}: what it remembers is missing here."
    if not found.records:
        yield (
            f"Nothing is remembered of connection {connection}: it has not ended (`consul-tgw connections` has the live"
            " ones), or more than 1000 have ended in its worker since, or its worker has been replaced. With"
            " --access-log off, those that ended well are not remembered. The access log has them all."
        )
        return
    for record in found.records[:_MOST_REQUESTS]:
        yield from _lines(record)
    if len(found.records) > _MOST_REQUESTS:
        yield f"and {len(found.records) - _MOST_REQUESTS} requests before these."


def told_live(live: Connection) -> Iterator[str]:
    by = f" Policy let it in, by {live.intention}." if live.intention else ""
    where = f" It goes to {live.endpoint}." if live.endpoint else ""
    yield (
        f"It is live: {live.source or 'nobody who is authenticated yet'} from {live.client}"
        f" to {live.service or 'no service yet'}, since {point(live.opened_at_s)}.{by}{where}"
    )
    yield f"  {live.bytes_received} bytes came from the caller and {live.bytes_sent} went to it so far."
    callers = sorted({request.caller for request in live.live_requests if request.caller})
    for caller in callers:
        yield f"  It asks for {caller} at the moment."
    if live.service and (callers or live.source):
        for source in callers or (live.source,):
            yield f"  What would be decided now: consul-tgw explain {source} {live.service}"


def _lines(record: PastRecord) -> Iterator[str]:
    what = f"Request {record.method} {record.path}" if record.event == "request" else "Connection"
    asked = f" to {record.service}" if record.service else ""
    of_peer = f" of peer {record.peer}" if record.peer else ""
    through = f" through {record.via}" if record.via else ""
    yield (
        f"{what} of {record.source or 'nobody who was authenticated'}{of_peer}{through} from {record.client}{asked},"
        f" at {record.time}, worker {record.worker}, number {record.number}:"
    )
    by = f", by {record.intention}" if record.intention else ""
    yield f"  {_VERDICTS.get(record.verdict, record.verdict)}{by}."
    answered = f" It was answered {record.status}." if record.status else ""
    detail = f": {record.detail}" if record.detail else ""
    yield f"  It ended as {record.reason}{detail}.{answered}"
    if record.endpoint:
        yield f"  It went to {record.endpoint}."
    yield (
        f"  {record.bytes_received} bytes came from the caller and {record.bytes_sent} went to it,"
        f" in {record.duration_ms / 1000:.3f} s."
    )
