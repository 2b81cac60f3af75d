"""What has ended lately in one worker: the last connections and requests, for an operator who asks why.

Bounded, and in memory alone. The records are those of the access log; strangers, who may come in any number, are kept
as they are logged, so that they do not push out those whose caller is known.
"""

from __future__ import annotations

from collections import deque

import msgspec

from proxy.messages import Recall
from proxy.model import CloseReason
from proxy.records.access_record import AccessRecord

MOST = 1_000
"""A record takes about one KiB."""
_ORDINARY = frozenset({CloseReason.CLIENT_EOF, CloseReason.UPSTREAM_EOF, CloseReason.COMPLETED})
_encoder = msgspec.json.Encoder()


def remarkable(reason: CloseReason | None) -> bool:
    """Whether somebody may ask why it ended: it is remembered even where nothing is logged."""
    return reason not in _ORDINARY


class Recent:
    def __init__(self, most: int = MOST) -> None:
        self._records: deque[AccessRecord] = deque(maxlen=most)

    def add(self, record: AccessRecord) -> None:
        self._records.append(record)

    def matching(self, asked: Recall) -> tuple[str, ...]:
        """As lines of JSON, the newest first."""
        service = "" if asked.service is None else str(asked.service)
        found: list[str] = []
        for record in reversed(self._records):
            if len(found) >= asked.limit:
                break
            if asked.number not in (0, record.number) or service not in ("", record.service):
                continue
            if not asked.allowed and record.verdict == "allowed":
                continue
            found.append(_encoder.encode(record).decode())
        return tuple(found)
