"""What a worker remembers of what has ended."""

from __future__ import annotations

import json

from proxy.messages import Recall
from proxy.model import CloseReason, ServiceName
from proxy.records.access_record import AccessRecord
from proxy.records.recent import Recent, remarkable


def record(number: int, service: str = "db", verdict: str = "allowed") -> AccessRecord:
    return AccessRecord(
        time="t", worker=0, number=number, client="c", verdict=verdict, reason="client_eof", service=service
    )


def numbers(recent: Recent, **asked: object) -> list[int]:
    return [json.loads(line)["number"] for line in recent.matching(Recall(1, **asked))]  # type: ignore[arg-type]


def test_the_newest_come_first_and_the_oldest_are_forgotten() -> None:
    recent = Recent(most=3)
    for number in range(1, 6):
        recent.add(record(number))
    assert numbers(recent) == [5, 4, 3]
    assert numbers(recent, limit=2) == [5, 4]
    assert numbers(recent, limit=0) == []
    assert numbers(recent, number=4) == [4]
    assert numbers(recent, number=1) == []


def test_they_are_found_by_service_and_verdict() -> None:
    recent = Recent()
    recent.add(record(1))
    recent.add(record(2, "cache", "denied"))
    recent.add(record(3, "", "refused"))
    assert numbers(recent, allowed=False) == [3, 2]
    assert numbers(recent, service=ServiceName("cache")) == [2]


def test_what_ends_well_is_not_remarkable() -> None:
    ordinary = {reason for reason in CloseReason if not remarkable(reason)}
    assert ordinary == {CloseReason.CLIENT_EOF, CloseReason.UPSTREAM_EOF, CloseReason.COMPLETED}
