"""Lines of the control process for the audit log, and what it says of policy and of admin calls."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from plugin.admin.app import build_app
from plugin.admin.audited import fingerprint
from plugin.admin.guard import Access
from plugin.admin.token import AdminToken
from plugin.audit import journal as journal_module
from plugin.audit.desk import AuditDesk
from plugin.audit.journal import Journal
from plugin.audit.policy import MOST_TOLD, PolicyWitness
from plugin.errors import ConfigError, StartError
from plugin.settings import ConsulSettings, GatewaySettings
from plugin.workers.published import Published
from proxy.model import Service, ServiceName
from proxy.rules import Action, Intention, TokenProvider
from tests.unit.plugin.admin.test_admin import BEARER, TOKEN, View
from tests.unit.plugin.workers.test_published import LEAF, MESH

Lines = Callable[[], list[dict[str, Any]]]
DB = ServiceName("db")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    made = Journal(descriptor, "gw")
    os.close(descriptor)  # the journal has its own
    yield made
    made.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_when_what_and_which_gateway(journal: Journal, path: Path) -> None:
    journal.note("gateway.started", detail="x", count=1)
    journal.close()
    [line] = lines(path)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "gateway.started", "gateway": "gw", "pid": os.getpid(), "detail": "x", "count": 1}


def test_without_a_file_there_is_nothing() -> None:
    journal = Journal(-1, "gw")
    journal.note("gateway.started")
    journal.close()
    assert (journal.wanted, journal.dropped) == (False, 0)


def test_lines_before_a_rotation_stay_in_the_former_file(journal: Journal, path: Path, tmp_path: Path) -> None:
    journal.note("one")
    second = tmp_path / "second"
    descriptor = os.open(second, os.O_WRONLY | os.O_CREAT)
    journal.redirect(descriptor)
    os.close(descriptor)
    journal.note("two")
    journal.close()
    assert [line["event"] for line in lines(path)] == ["one"]
    assert [line["event"] for line in lines(second)] == ["two"]


def test_a_full_disk_costs_lines_that_are_counted(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, room = os.write, [20, -1, -1, -1]

    def scarce(descriptor: int, data: bytes) -> int:
        if room:
            left = room.pop(0)
            if left < 0:
                raise OSError(28, "No space left on device")
            data = data[:left]
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", scarce)
    for event in ("cut", "lost", "kept"):
        journal.note(event)
    journal.close()
    assert journal.dropped == 2
    whole = [line for line in path.read_bytes().split(b"\n")[1:] if line]
    assert [json.loads(line)["event"] for line in whole] == ["audit_log.lines_dropped", "kept"]
    assert json.loads(whole[0])["count"] == 2


def test_who_has_something_to_say_never_waits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_WAITING", 3)
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    journal = Journal(writing, "gw")
    try:
        for _ in range(10_000):
            journal.note("gateway.started", detail="x" * 100)
        assert journal.dropped > 0
    finally:
        os.close(reading)  # the thread gets EPIPE instead of waiting on
        os.close(writing)
        journal.close()


def intention(source: str, action: Action) -> Intention:
    return Intention(source=source, action=action, precedence=9, destination="db")


class Plane:
    """Published states, one after the other."""

    def __init__(self, journal: Journal) -> None:
        self.published = Published()
        self.passed_on: list[tuple[frozenset[ServiceName], bool]] = []
        self.witness = PolicyWitness(journal, self.published, self._publish, lambda name: 17)
        self.witness.active = True

    def _publish(self, names: frozenset[ServiceName], *, mesh: bool) -> None:
        self.passed_on.append((names, mesh))

    def put(self, *intentions: Intention) -> None:
        self.published.services[DB] = Service(DB, LEAF, (), intentions=intentions)
        self.published.generation += 1
        self.witness.publish(frozenset({DB}), mesh=False)


def test_policy_is_told_by_difference(journal: Journal, path: Path) -> None:
    plane = Plane(journal)
    plane.put(intention("web", Action.ALLOW))
    plane.put(intention("web", Action.ALLOW))
    plane.put(intention("web", Action.DENY))
    del plane.published.services[DB]
    plane.witness.publish(frozenset({DB}), mesh=False)
    journal.close()
    first, changed, unlinked = lines(path)
    assert (first["event"], first["added"], first["index"]) == (
        "policy.in_force",
        ["allow web => db (precedence 9)"],
        17,
    )
    assert (changed["event"], changed["generation"]) == ("policy.changed", 3)
    assert (changed["added"], changed["removed"]) == (
        ["deny web => db (precedence 9)"],
        ["allow web => db (precedence 9)"],
    )
    assert unlinked["event"] == "policy.unlinked"
    assert len(plane.passed_on) == 4


def test_the_default_and_keys_are_told_when_they_change(journal: Journal, path: Path) -> None:
    plane = Plane(journal)
    for action, keys in ((Action.DENY, "a"), (Action.DENY, "b"), (None, "b")):
        providers = (TokenProvider(name="login", issuer="i", keys_json=keys),)
        plane.published.mesh = msgspec.structs.replace(MESH, default_action=action, token_providers=providers)
        plane.witness.publish(frozenset(), mesh=True)
    journal.close()
    told = [(line["event"], line.get("before"), line.get("now"), line.get("providers")) for line in lines(path)]
    assert told == [
        ("policy.default", "", "deny", None),
        ("keys.changed", None, None, ["login"]),
        ("keys.changed", None, None, ["login"]),
        ("policy.default", "deny", "unknown", None),
    ]


def test_a_generation_that_is_only_tried_says_nothing(journal: Journal, path: Path) -> None:
    plane = Plane(journal)
    plane.witness.active = False
    plane.put(intention("web", Action.ALLOW))
    journal.close()
    assert (lines(path), len(plane.passed_on)) == ([], 1)


def test_many_intentions_are_counted(journal: Journal, path: Path) -> None:
    Plane(journal).put(*(intention(f"web{number}", Action.ALLOW) for number in range(MOST_TOLD + 3)))
    journal.close()
    [line] = lines(path)
    assert (len(line["added"]), line["left_out"]) == (MOST_TOLD, 3)


async def test_calls_are_told_without_the_token(journal: Journal, path: Path) -> None:
    app = build_app(View(), Access(token=AdminToken(TOKEN)), journal=journal)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/api/status")).status == 200
        assert (await client.post("/api/refresh", json={"a": 1}, headers=BEARER)).status == 202
        assert (await client.post("/nowhere", json={}, headers=BEARER)).status == 404
        assert (await client.post("/api/refresh", json={}, headers={"Authorization": "Bearer wrong"})).status == 401
    journal.close()
    good, nowhere, refused = lines(path)
    assert (good["path"], good["status"], good["token"]) == ("/api/refresh", 202, fingerprint(TOKEN))
    assert json.loads(good["body"]) == {"a": 1}
    assert (nowhere["status"], refused["status"], refused["token"]) == (404, 401, "")
    assert "body" not in refused
    assert not [line for line in (good, nowhere, refused) if TOKEN in str(line) or "wrong" in str(line)]


async def test_refused_calls_fill_no_disk(journal: Journal, path: Path) -> None:
    app = build_app(View(), Access(token=AdminToken(TOKEN)), journal=journal)
    async with TestClient(TestServer(app)) as client:
        for _ in range(60):
            assert (await client.post("/api/refresh", json={})).status == 401
        assert (await client.post("/api/refresh", json={}, headers=BEARER)).status == 202
    journal.close()
    told = lines(path)
    assert 1 < len(told) < 60
    assert len(told) + sum(line.get("left_out", 0) for line in told) == 61


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    settings = GatewaySettings(consul=ConsulSettings(), audit_log=tmp_path / "absent" / "audit.log")
    with pytest.raises(StartError, match=r"cannot open the audit log .*absent/audit.log: .*; see --audit-log"):
        AuditDesk(settings)
    with pytest.raises(ConfigError, match="name its file with --audit-log"):
        GatewaySettings(consul=ConsulSettings(), audit_allowed=True)
