from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import logs

logger = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(style: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, style, stream)
    return stream


def test_a_text_line_has_time_level_event_sentence_and_fields() -> None:
    stream = written("text")
    logs.emit(logger, logging.INFO, "worker.started", "worker 0 was started", pid=7, path="a b")
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'INFO worker.started: worker 0 was started pid=7 path="a b"\n'


def test_a_message_cannot_forge_a_second_line() -> None:
    stream = written("text")
    logs.emit(logger, logging.INFO, "x", "one\ntwo", value="three\nfour")
    assert stream.getvalue().count("\n") == 1


def test_json_lines_keep_event_and_fields_apart() -> None:
    stream = written("json")
    logs.emit(logger, logging.WARNING, "service.problem", "100% broken", service="legacy")
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["message"]) == ("warning", "service.problem", "100% broken")
    assert line["service"] == "legacy"


def test_lines_of_other_modules_carry_their_logger_as_event() -> None:
    stream = written("json")
    logger.warning("%s is away", "Consul")
    assert json.loads(stream.getvalue())["event"] == "tests.logs"


def test_tracebacks_are_kept() -> None:
    stream = written("json")
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("failed")
    assert "ValueError: inside" in json.loads(stream.getvalue())["exception"]


def test_lines_below_the_level_are_left_out() -> None:
    stream = written("text", "warning")
    logs.emit(logger, logging.INFO, "x", "quiet")
    assert stream.getvalue() == ""


@contextlib.contextmanager
def standard_error(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The other end of a pipe that is standard error."""
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        yield reading
    os.close(reading)


def read_lines(descriptor: int, last: str) -> list[str]:
    received = ""
    while last not in received or not received.endswith("\n"):
        received += os.read(descriptor, 1_000_000).decode()
    return received.splitlines()


def test_a_pipe_that_nobody_reads_holds_nobody_up_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_error(monkeypatch) as reading:
        logs.configure("info", "json")
        for number in range(13_000):
            logs.emit(logger, logging.INFO, "x", "line", number=number)
        lost = logs.dropped()
        assert lost > 0
        received = b""
        while received.count(b'"event":"x"') < 13_000 - lost or b"log.lines_dropped" not in received[-1_000:]:
            received += os.read(reading, 1_000_000)
        lines = [json.loads(line) for line in received.splitlines()]
        assert [line["count"] for line in lines if line["event"] == "log.lines_dropped"] == [lost]


def test_a_closed_pipe_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_error(monkeypatch) as reading:
        logs.configure("info", "text")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, reading)
        os.close(null)
        logs.emit(logger, logging.INFO, "x", "nobody hears it")
        logs.flush()
        assert logs.dropped() == 1


def test_a_line_cut_by_a_full_disk_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    with path.open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        logs.configure("info", "text")
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
            logs.emit(logger, logging.INFO, "x", "one")
            logs.flush()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        logs.emit(logger, logging.INFO, "x", "two")
        logs.flush()
    cut, second, told = path.read_text().splitlines()
    assert len(cut) == 10
    assert second.endswith("INFO x: two")
    assert "1 log lines were dropped" in told


def test_configured_again_it_goes_on_with_the_new_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_error(monkeypatch) as reading:
        logs.configure("info", "text")
        logs.emit(logger, logging.INFO, "x", "one")
        logs.flush()
        logs.configure("info", "json")
        logs.emit(logger, logging.INFO, "last", "two")
        first, second = read_lines(reading, "last")
        assert first.endswith("INFO x: one")
        assert json.loads(second)["message"] == "two"


def test_what_cannot_be_shown_is_counted_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with standard_error(monkeypatch):
        logs.configure("info", "text")
        logger.info("%d", "not a number")
        assert logs.dropped() == 1
