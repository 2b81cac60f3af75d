from __future__ import annotations

from typing import Any

import pytest

from plugin.linking.edit import Entry, Refused
from plugin.linking.intentions import our_sources, with_sources, without_ours

MARK = "managed-by=consul-tgw"
OURS = {"Name": "web", "Action": "allow", "Description": MARK}
PERMISSIONS = [{"Action": "allow", "HTTP": {"PathPrefix": "/x"}}]


def entry(*sources: dict[str, Any], **fields: Any) -> Entry:
    rows = [{**source, "Precedence": 9, "Type": "consul"} for source in sources]
    return {"Kind": "service-intentions", "Name": "db", "Sources": rows, "ModifyIndex": 3, **fields}


def written(*sources: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**source, "Type": "consul"} for source in sources]


def test_others_and_their_order_stay() -> None:
    others = ({"Name": "a", "Permissions": PERMISSIONS}, {"Name": "*", "Action": "deny", "Future": 1})
    edit = with_sources(entry(*others, JWT={"Providers": []}), "db", ["web", "web"], replace=False)
    assert edit.cas == "3"
    assert edit.after is not None
    assert edit.after["Sources"] == [*written(*others), OURS]
    assert edit.after["JWT"] == {"Providers": []}
    assert edit.todo == ("allow web to call db",)


def test_the_first_source_makes_the_entry() -> None:
    edit = with_sources(None, "db", ["web"], replace=False)
    assert (edit.cas, edit.after) == ("0", {"Kind": "service-intentions", "Name": "db", "Sources": [OURS]})
    assert not with_sources(None, "db", [], replace=False).changed


def test_an_allow_is_left_alone() -> None:
    edit = with_sources(entry({"Name": "web", "Action": "allow"}), "db", ["web"], replace=False)
    assert not edit.changed
    assert edit.kept == ("web may call db",)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"Name": "web", "Action": "deny", "Description": "incident 7"}, "deny \\(incident 7\\)"),
        ({"Name": "web", "Permissions": PERMISSIONS}, "1 permission"),
        ({"Name": "web"}, "no action"),
    ],
)
def test_a_deny_is_opened_only_when_told(source: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=f"{said}.*--replace"):
        with_sources(entry(source), "db", ["web"], replace=False)
    edit = with_sources(entry(source), "db", ["web"], replace=True)
    assert edit.after is not None
    assert edit.after["Sources"] == written(OURS)
    assert "instead of" in edit.todo[0]


def test_a_source_elsewhere_is_another_one() -> None:
    elsewhere = (
        {"Name": "web", "Action": "deny", "Peer": "east"},
        {"Name": "web", "Action": "deny", "SamenessGroup": "all"},
        {"Name": "web", "Action": "deny", "Namespace": "team"},
    )
    edit = with_sources(entry(*elsewhere), "db", ["web"], replace=False)
    assert edit.after is not None
    assert edit.after["Sources"] == [*written(*elsewhere), OURS]


def test_what_consul_takes_only_unchanged_is_said_before_it_is_tried() -> None:
    old = {"Name": "a", "Action": "deny", "LegacyID": "1", "LegacyMeta": {"k": "v"}}
    with pytest.raises(Refused, match="consul intention create -replace -deny a db"):
        with_sources(entry(old), "db", ["web"], replace=True)
    with pytest.raises(Refused):
        without_ours(entry(old, OURS), "db")


def test_only_ours_are_removed() -> None:
    theirs = ({"Name": "a", "Action": "allow"}, {"Name": "b", "Action": "deny", "Description": MARK})
    edit = without_ours(entry(theirs[0], OURS, theirs[1]), "db")
    assert edit.after is not None
    assert edit.after["Sources"] == written(*theirs)
    assert "2 other" in edit.notes[0]
    assert our_sources(entry(*theirs, OURS)) == ("web",)
    assert not without_ours(entry(*theirs), "db").changed
    assert not without_ours(None, "db").changed


def test_the_last_source_takes_the_entry_along_unless_more_is_in_it() -> None:
    edit = without_ours(entry(OURS), "db")
    assert (edit.changed, edit.after, edit.cas) == (True, None, "3")
    with pytest.raises(Refused, match="consul config delete"):
        without_ours(entry(OURS, Meta={"owner": "x"}), "db")
