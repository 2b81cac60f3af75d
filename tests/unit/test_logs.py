from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

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
