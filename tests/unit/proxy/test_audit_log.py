"""The audit log of a worker: whom it tells, and how much it remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from proxy.connection import ConnectionLife
from proxy.model import CloseReason
from proxy.policy.decision import Refusal
from proxy.records import audit_log
from proxy.records.audit_log import AuditLog

DECISION = Refusal(CloseReason.DENIED, None, "nobody is let in")
"""What it holds is all that matters here; who was let in has a Permit, which only a policy makes."""


def life(source: str, service: str = "db") -> ConnectionLife:
    made = ConnectionLife(1, "127.0.0.1:1", wall_s=0.0, monotonic_s=0.0)
    made.spiffe_id, made.service = source, service
    return made


def told(path: Path, *sources: str, every_allowed: bool = False) -> list[str]:
    log = AuditLog(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), gateway="gw", every_allowed=every_allowed)
    for source in sources:
        log.connection_allowed(life(source), DECISION)
    log.close(5.0)
    return [json.loads(line)["source"] for line in path.read_text().splitlines()]


def test_a_caller_is_told_once(tmp_path: Path) -> None:
    assert told(tmp_path / "log", "a", "b", "a", "a") == ["a", "b"]


def test_or_each_time(tmp_path: Path) -> None:
    assert told(tmp_path / "log", "a", "b", "a", every_allowed=True) == ["a", "b", "a"]


def test_the_one_remembered_longest_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MOST_REMEMBERED", 2)
    assert told(tmp_path / "log", "a", "b", "b", "c", "b", "a") == ["a", "b", "c", "a"]


def test_without_a_file_nothing_is_made() -> None:
    log = AuditLog(-1)
    log.connection_allowed(life("a"), DECISION)
    assert (log.wanted, log.dropped) == (False, 0)


def test_lines_go_to_the_new_file_after_a_rotation(tmp_path: Path) -> None:
    log = AuditLog(os.open(tmp_path / "one", os.O_WRONLY | os.O_CREAT))
    log.connection_allowed(life("a"), DECISION)
    log.redirect(os.open(tmp_path / "two", os.O_WRONLY | os.O_CREAT))
    log.connection_allowed(life("b"), DECISION)
    log.close(5.0)
    for former in log._former:
        former.join(5.0)
    assert [json.loads((tmp_path / name).read_text())["source"] for name in ("one", "two")] == ["a", "b"]
