from __future__ import annotations

from typing import Any

import pytest

from plugin.consul.api import HealthEntry, Instance, Node
from plugin.linking.edit import Entry, Refused
from plugin.linking.plan import EditStep, Found, Permission, RegisterStep, RemoveStep, plan_link, plan_unlink
from plugin.linking.request import LinkRequest

MARKED = {"managed-by": "consul-tgw"}


def request(**fields: Any) -> LinkRequest:
    return LinkRequest(**{"service": "db", "host": "10.0.0.9", "port": 5432, "gateway": "gw", **fields})


def entry(name: str, *services: str, **fields: Any) -> Entry:
    links = [{"Name": service} for service in services]
    return {"Kind": "terminating-gateway", "Name": name, "Services": links, "ModifyIndex": 4, **fields}


def ours() -> Entry:
    row = {"Name": "web", "Action": "allow", "Description": "managed-by=consul-tgw"}
    return {"Kind": "service-intentions", "Name": "db", "Sources": [row], "ModifyIndex": 5}


def instance(meta: dict[str, str] | None = None) -> HealthEntry:
    service = Instance(id="db", service="db", address="10.0.0.9", port=5432, meta=meta)
    return HealthEntry(node=Node(node="external-10-0-0-9", address="10.0.0.9"), service=service)


def found(**fields: Any) -> Found:
    return Found(**{"entry": entry("gw"), "intentions": None, **fields})


def kinds(steps: tuple[Any, ...]) -> list[str]:
    return [step.edit.kind if isinstance(step, EditStep) else type(step).__name__ for step in steps]


def test_callers_are_let_in_last() -> None:
    plan = plan_link(request(allow=("web",)), found())
    assert kinds(plan.steps) == ["terminating-gateway", RegisterStep.__name__, "service-intentions"]
    assert set(plan.permissions) == {
        Permission("mesh", "write"),
        Permission("service", "write", "db"),
        Permission("node", "write", "external-10-0-0-9"),
        Permission("intention", "write", "db"),
    }


def test_what_is_there_needs_no_step_and_no_right() -> None:
    there = found(entry=entry("gw", "db"), instances=(instance(),), intentions=ours())
    plan = plan_link(request(allow=("web",)), there)
    assert (plan.steps, plan.permissions, len(plan.kept)) == ((), (), 3)


def test_all_that_is_refused_is_said_at_once() -> None:
    denied = {"Sources": [{"Name": "web", "Action": "deny"}], "ModifyIndex": 1}
    with pytest.raises(Refused) as refused:
        plan_link(request(allow=("web",)), found(entry=None, clashes=True, intentions=denied))
    assert len(refused.value.reasons) == 3
    for word in ("ingress-gateway", "--create", "deny"):
        assert any(word in reason for reason in refused.value.reasons)


def test_intentions_of_an_old_consul_are_left_to_its_own_command() -> None:
    with pytest.raises(Refused, match="consul intention create -allow web db"):
        plan_link(request(allow=("web",)), found(intentions_are_entries=False))
    assert plan_link(request(), found(intentions_are_entries=False)).steps


def test_purge_goes_the_other_way() -> None:
    there = found(entry=entry("gw", "db", "ldap"), instances=(instance(MARKED),), intentions=ours())
    plan = plan_unlink("db", "gw", there, purge=True)
    assert kinds(plan.steps) == ["service-intentions", RemoveStep.__name__, "terminating-gateway"]
    assert Permission("service", "write", "db") in plan.permissions


def test_unlinking_alone_says_what_is_left() -> None:
    there = found(entry=entry("gw", "db"), instances=(instance(MARKED),), intentions=ours())
    plan = plan_unlink("db", "gw", there, purge=False)
    assert kinds(plan.steps) == ["terminating-gateway"]
    assert "consul-tgw unlink db --gateway gw --purge" in plan.notes[0]
    assert "1 registered instance(s) and the intentions that let in web" in plan.notes[0]


@pytest.mark.parametrize("other", [entry("other", "db"), entry("other", "*")])
def test_what_another_gateway_links_is_not_purged(other: Entry) -> None:
    gateways = (entry("gw", "db"), other)
    there = found(entry=gateways[0], gateways=gateways, instances=(instance(MARKED),), intentions=ours())
    plan = plan_unlink("db", "gw", there, purge=True)
    assert kinds(plan.steps) == ["terminating-gateway"]
    assert "linked by other as well" in plan.notes[0]


def test_what_an_old_consul_cannot_delete_safely_is_emptied() -> None:
    there = found(entry=entry("gw", "db", Meta=MARKED), instances=(instance(MARKED),), deletes_safely=False)
    remove, unlink = plan_unlink("db", "gw", there, purge=True).steps
    assert isinstance(remove, RemoveStep)
    assert not remove.node_too
    assert isinstance(unlink, EditStep)
    assert unlink.edit.after is not None
    assert unlink.edit.after["Services"] == []
    with pytest.raises(Refused, match="consul intention delete web db"):
        plan_unlink("db", "gw", found(intentions=ours(), deletes_safely=False), purge=True)


def test_nothing_is_purged_while_a_gateway_may_be_hidden() -> None:
    there = found(entry=entry("gw", "db"), instances=(instance(MARKED),), all_gateways=False)
    with pytest.raises(Refused, match="service_prefix"):
        plan_unlink("db", "gw", there, purge=True)
    assert kinds(plan_unlink("db", "gw", there, purge=False).steps) == ["terminating-gateway"]
