"""docs/reasons.md has every close reason, every log event with its fields, every sentence of check; and no other."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest

from proxy.logs import JSONFormatter
from proxy.model import CloseReason
from tests.support.catalogue import EVENT, events, sentences

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reasons.md").read_text()
FROM_MAPPINGS = {
    "access_log.left_out": {"count"},
    "access_log.lines_dropped": {"count"},
    "audit_log.left_out": {"count"},
    "endpoint.ejected": {"endpoint", "instance"},
    "endpoint.returned": {"endpoint", "instance"},
    "limits.reached": {"count"},
}
"""Fields that are given through a variable, so that the syntax tree does not name them."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """Cells of the rows that begin with code or text, without the heads of tables."""
    rows = [line for line in section(title).splitlines() if line.startswith("| ") and not line.startswith("|---")]
    return [[cell.strip() for cell in row[1:].rstrip().removesuffix("|").split("|")] for row in rows]


def test_every_close_reason_says_what_to_do() -> None:
    rows = {cells[0].strip("`"): cells for cells in table("Close reasons") if cells[0].startswith("`")}
    assert list(rows) == [one.value for one in CloseReason]
    for reason, (_, meaning, who, what) in rows.items():
        assert len(meaning) > 10, reason
        assert who in ("nobody", "operator", "service owner", "who runs the client", "developers"), reason
        assert who == "nobody" or what, f"{reason}: {who} has to act, and is not told how"


def test_every_event_has_its_row_and_its_fields() -> None:
    rows = {
        cells[0].strip("`"): (cells[1], cells[-1])
        for cells in table("Log events")
        if EVENT.fullmatch(cells[0].strip("`"))
    }
    found = events()
    assert list(rows) == sorted(found)
    for name, fields in found.items():
        shown, what = rows[name]
        assert set(re.findall(r"`(\w+)`", shown)) == fields | FROM_MAPPINGS.get(name, set()), name
        assert len(what) > 6, name


def test_fields_from_mappings_are_of_events_that_exist() -> None:
    assert FROM_MAPPINGS.keys() <= events().keys()


def test_every_sentence_of_check_has_its_remedy() -> None:
    rows = {cells[0]: cells[1] for cells in table("What check, status and the agent's check say")}
    rows.pop("Sentence")
    assert rows.keys() == sentences().keys()
    assert all(rows.values())


def test_a_json_line_has_the_fields_of_the_page() -> None:
    record = logging.makeLogRecord({"name": "plugin.x", "levelno": logging.INFO, "levelname": "INFO", "msg": "hello"})
    record.event, record.worker = "worker.started", 3
    line = json.loads(JSONFormatter().format(record))
    named = {cells[0].strip("`") for cells in table("Log events") if not EVENT.fullmatch(cells[0].strip("`"))}
    assert line.keys() - {"worker"} <= named
    assert {"time", "level", "event", "logger", "message"} <= line.keys()


@pytest.mark.parametrize("page", ["audit-log.md", "metrics.md"])
def test_other_pages_point_here(page: str) -> None:
    assert "(reasons.md)" in (ROOT / "docs" / page).read_text()
