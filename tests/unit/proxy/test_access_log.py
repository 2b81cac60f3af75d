"""Lines arrive whole and in order; a full pipe delays the log and nothing else."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.model import AccessLogFormat, LogPart
from proxy.records.access_log import AccessLog
from proxy.records.access_record import AccessRecord, timestamp


def record(number: int, **fields: Any) -> AccessRecord:
    return AccessRecord(
        time=timestamp(1_700_000_000.25),
        worker=1,
        number=number,
        client="127.0.0.1:1",
        verdict="allowed",
        reason="client_eof",
        **fields,
    )


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_lines_are_json_in_order(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    for number in range(100):
        log.write(record(number, bytes_received=number), 0.0)
    log.close(10)
    lines = os.read(pipe[0], 1_000_000).splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(100))
    assert json.loads(lines[5]) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "worker": 1,
        "number": 5,
        "client": "127.0.0.1:1",
        "verdict": "allowed",
        "reason": "client_eof",
        "bytes_received": 5,
    }


def test_a_blocked_pipe_blocks_no_writer_and_the_loss_is_told(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    for number in range(25_000):
        log.write(record(number), 0.0)
    assert log.dropped > 0
    received = bytearray()
    while b"access_log_lines_dropped" not in received:
        received += os.read(pipe[0], 1_000_000)
    log.close(10)
    received += os.read(pipe[0], 1_000_000) if b"\n" not in received[-1:] else b""
    told = [json.loads(line) for line in received.splitlines() if b"lines_dropped" in line]
    assert sum(line["count"] for line in told) == log.dropped


def test_long_lines_are_bounded_by_their_bytes(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.records.outlet.MOST_BYTES_WAITING", 1_000_000)
    log = AccessLog(pipe[1])
    for number in range(200):
        log.write(record(number, detail="x" * 60_000), 0.0)
    assert 150 < log.dropped < 190
    drained = threading.Thread(target=_drain, args=(pipe[0], b'"number":500'))
    drained.start()
    while log._outlet is not None and log._outlet._put > log._outlet._taken:
        time.sleep(0.01)
    before = log.dropped
    log.write(record(500), 0.0)
    assert log.dropped == before
    log.close(10)
    drained.join()


def _drain(descriptor: int, last: bytes) -> None:
    taken = b""
    while last not in taken[-100_000:]:
        taken = taken[-100_000:] + os.read(descriptor, 1_000_000)


def test_a_closed_pipe_is_survived() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = AccessLog(writing)
    log.write(record(1), 0.0)
    log.close(10)
    os.close(writing)
    assert log.dropped == 1


def test_nowhere_is_nowhere() -> None:
    before = threading.active_count()
    log = AccessLog(-1)
    log.write(record(1), 0.0)
    log.close(1)
    assert threading.active_count() == before


def test_later_lines_go_elsewhere_and_none_is_lost(pipe: tuple[int, int]) -> None:
    former = os.pipe()
    log = AccessLog(former[1])
    log.write(record(1), 0.0)
    log.redirect(pipe[1])
    log.write(record(2), 0.0)
    log.redirect(-1)
    log.write(record(3), 0.0)
    log.close(10)
    assert not log.wanted
    assert json.loads(os.read(former[0], 1_000_000))["number"] == 1
    # The former descriptor was ours to close: its pipe has no writer left.
    assert os.read(former[0], 1) == b""
    os.close(former[0])
    assert json.loads(os.read(pipe[0], 1_000_000))["number"] == 2
    os.dup2(os.open(os.devnull, os.O_WRONLY), pipe[1])


def test_a_log_that_went_nowhere_can_begin(pipe: tuple[int, int]) -> None:
    log = AccessLog(-1)
    log.redirect(-1)
    log.redirect(os.dup(pipe[1]))
    log.write(record(1), 0.0)
    log.close(10)
    assert json.loads(os.read(pipe[0], 1_000_000))["number"] == 1


def test_lines_are_written_as_the_operator_says(pipe: tuple[int, int]) -> None:
    log = AccessLog(pipe[1])
    log.layout = AccessLogFormat(parts=(LogPart("n="), LogPart("", "CONNECTION_ID"), LogPart("\n")), listener=False)
    log.write(record(1), 0.0)
    log.write(record(2, service="db"), 0.0)
    log.close(10)
    # The first one came to no service.
    assert os.read(pipe[0], 1_000_000) == b"n=2\n"
    assert not log.wants_local_address
    log.layout = AccessLogFormat(parts=(LogPart("", "DOWNSTREAM_LOCAL_PORT"),))
    assert log.wants_local_address


def test_a_full_pipe_keeps_nothing_from_going_elsewhere(pipe: tuple[int, int]) -> None:
    blocked = os.pipe()
    log = AccessLog(blocked[1])
    for number in range(2_000):
        log.write(record(number), 0.0)
    log.redirect(os.dup(pipe[1]))
    log.write(record(7), 0.0)
    assert json.loads(os.read(pipe[0], 1_000_000))["number"] == 7
    received = bytearray()
    while data := os.read(blocked[0], 1_000_000):
        received += data
    assert len(received.splitlines()) == 2_000
    assert log.dropped == 0
    os.close(blocked[0])
    log.close(10)


def test_a_line_cut_by_a_full_disk_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes ten bytes, then nothing for two writes, then everything."""
    path = tmp_path / "x.log"
    room = [10, -1, -1]
    whole = os.write

    def scarce(descriptor: int, data: bytes) -> int:
        if descriptor != file or not room:
            return whole(descriptor, data)
        left = room.pop(0)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, data[:left])

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    monkeypatch.setattr(os, "write", scarce)
    log = AccessLog(file)
    for number in range(3):
        log.write(record(number), 0.0)
        deadline_s = time.monotonic() + 20
        while path.stat().st_size < 100 and log.dropped <= number and time.monotonic() < deadline_s:
            time.sleep(0.01)
    log.close(10)
    os.close(file)
    cut, *lines = path.read_bytes().splitlines()
    assert len(cut) == 10
    assert json.loads(lines[0])["number"] == 2
    assert json.loads(lines[1]) == {"event": "access_log_lines_dropped", "count": 2}
    assert log.dropped == 2
