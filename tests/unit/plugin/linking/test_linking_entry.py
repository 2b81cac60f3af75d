from __future__ import annotations

from typing import Any

import pytest

from plugin.linking.edit import Entry, Refused
from plugin.linking.entry import links_to, with_link, without_link
from plugin.linking.request import LinkRequest


def request(**fields: Any) -> LinkRequest:
    return LinkRequest(**{"service": "db", "host": "10.0.0.9", "port": 5432, "gateway": "gw", **fields})


def entry(*services: dict[str, Any], **fields: Any) -> Entry:
    head = {"Kind": "terminating-gateway", "Name": "gw", "CreateIndex": 5, "ModifyIndex": 7, "Hash": 1}
    return {**head, "Services": list(services), **fields}


MARKED = {"managed-by": "consul-tgw"}


def test_what_others_wrote_stays_as_it_is() -> None:
    before = entry({"Name": "ldap", "Future": [1], "CAFile": "/a"}, Meta={"owner": "x"}, Unknown={"a": 1})
    edit = with_link(before, request(ca_file="/c", sni="db.example"))
    assert edit.changed
    assert edit.cas == "7"
    assert edit.after == {
        "Kind": "terminating-gateway",
        "Name": "gw",
        "Services": [
            {"Name": "ldap", "Future": [1], "CAFile": "/a"},
            {"Name": "db", "CAFile": "/c", "SNI": "db.example"},
        ],
        "Meta": {"owner": "x"},
        "Unknown": {"a": 1},
    }
    assert before["Services"] == [{"Name": "ldap", "Future": [1], "CAFile": "/a"}]


def test_an_entry_that_is_missing_is_created_only_when_told() -> None:
    with pytest.raises(Refused, match=r"there are: other .*--create"):
        with_link(None, request(), other_gateways=["other"])
    edit = with_link(None, request(create=True))
    assert edit.cas == "0"
    assert edit.after == {"Kind": "terminating-gateway", "Name": "gw", "Services": [{"Name": "db"}], "Meta": MARKED}


def test_a_second_time_changes_nothing() -> None:
    edit = with_link(entry({"Name": "db", "CAFile": "/a", "DisableAutoHostRewrite": True}), request(ca_file="/a"))
    assert not edit.changed
    assert not edit.todo
    assert edit.kept == ("db is linked in the terminating-gateway entry gw (TLS with CAFile /a)",)


def test_a_link_that_differs_is_replaced_only_when_told() -> None:
    there = entry({"Name": "db", "CAFile": "/a", "SNI": "x", "DisableAutoHostRewrite": True, "Future": 1})
    with pytest.raises(Refused, match=r"TLS with CAFile /a, SNI x, not plain TCP.*--replace"):
        with_link(there, request())
    edit = with_link(there, request(replace=True))
    assert edit.after is not None
    assert edit.after["Services"] == [{"Name": "db", "DisableAutoHostRewrite": True, "Future": 1}]


def test_a_wildcard_covers_only_what_it_links_in_the_same_way() -> None:
    covered = with_link(entry({"Name": "*"}), request())
    assert not covered.changed
    assert "linked by *" in covered.kept[0]
    own = with_link(entry({"Name": "*"}), request(ca_file="/a"))
    assert own.after is not None
    assert own.after["Services"] == [{"Name": "*"}, {"Name": "db", "CAFile": "/a"}]
    assert "counts instead of that of *" in own.notes[0]


def test_a_link_of_another_namespace_is_another_service() -> None:
    there = entry({"Name": "db", "Namespace": "team"}, Namespace="default")
    edit = with_link(there, request())
    assert edit.after is not None
    assert edit.after["Services"] == [{"Name": "db", "Namespace": "team"}, {"Name": "db"}]
    assert not links_to(there, "db")


def test_unlinking_takes_one_link_out() -> None:
    there = entry({"Name": "a"}, {"Name": "db", "CAFile": "/a"}, {"Name": "*"}, Meta=MARKED)
    edit = without_link(there, "db", "gw", purge=True)
    assert edit.after is not None
    assert edit.after["Services"] == [{"Name": "a"}, {"Name": "*"}]
    assert "links every service" in edit.notes[0]


def test_only_an_empty_entry_of_ours_is_deleted_and_only_by_purge() -> None:
    ours, theirs = entry({"Name": "db"}, Meta=MARKED), entry({"Name": "db"}, Meta={"owner": "x"})
    assert without_link(ours, "db", "gw", purge=True).after is None
    assert without_link(entry(Meta=MARKED), "db", "gw", purge=True).after is None
    for there, purge in ((ours, False), (theirs, True)):
        after = without_link(there, "db", "gw", purge=purge).after
        assert after is not None
        assert after["Services"] == []


def test_what_is_not_linked_needs_no_unlinking() -> None:
    for there in (None, entry({"Name": "other"}), entry()):
        edit = without_link(there, "db", "gw", purge=False)
        assert not edit.changed
        assert edit.kept
