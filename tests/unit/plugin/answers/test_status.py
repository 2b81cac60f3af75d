from __future__ import annotations

from plugin.answers.status import default_action, open_by_service, service_status, watch_statuses
from plugin.consul.poller import WatchState
from plugin.workers.counters import Dials
from proxy.messages import Count, Counters
from proxy.model import Endpoint, Leaf, Mesh, ServerName, Service, ServiceName
from proxy.rules import Action

LEAF = Leaf("chain", "key", "spiffe://x", "01", 0.0, 7.0)


def test_open_connections_are_counted_over_workers() -> None:
    first = Counters((Count("a", "web", "", 2, 0, 0), Count("a", "web", "client_eof", 9, 0, 0)), 2, 0, 0)
    second = Counters((Count("a", "api", "", 3, 0, 0), Count("b", "web", "", 1, 0, 0)), 4, 0, 0)
    assert open_by_service([first, second]) == {"a": 5, "b": 1}


def test_a_service_shows_each_endpoint_once_and_no_key() -> None:
    ends = (Endpoint("10.0.0.1", 1), Endpoint("::1", 2, "db.example", 3, False, "n/i"))
    names = (ServerName("a.x", ends), ServerName("v1.a.x", ends[:1], "v1"))
    shown = service_status(
        Service(ServiceName("a"), LEAF, names, ()),
        reasons=(),
        warnings=(),
        from_wildcard=True,
        open_connections=4,
        dials=Dials(3, 1),
    )
    assert [end.address for end in shown.endpoints] == ["10.0.0.1:1", "[::1]:2"]
    assert (shown.served, shown.intentions, shown.leaf_expires_at_s, shown.open_connections) == (True, 0, 7.0, 4)
    assert (shown.dials.failures, shown.dials.ejections, shown.dials.shortages) == (3, 1, 0)
    assert "key" not in repr(shown)


def test_unknown_intentions_are_not_none_at_all() -> None:
    service = Service(ServiceName("a"), LEAF, (), None)
    shown = service_status(service, reasons=(), warnings=(), from_wildcard=False, open_connections=0, dials=Dials())
    assert shown.intentions is None


def test_a_watch_without_an_answer_is_not_known() -> None:
    states = [
        WatchState(name="roots", index=3, age_s=2.0, problem="", requests=1),
        WatchState(name="mesh", index=0, age_s=None, problem="away", requests=1),
        WatchState(name="old", index=0, age_s=1.0, problem="", requests=1, note="no such kind"),
    ]
    roots, mesh, old = watch_statuses(states)
    assert (roots.known, roots.age_s) == (True, 2.0)
    assert (mesh.known, mesh.problem) == (False, "away")
    assert (old.known, old.problem, old.note) == (True, "", "no such kind")


def test_the_default_action_is_empty_while_unknown() -> None:
    assert default_action(None) == ""
    assert default_action(Mesh("x", "dc1", ())) == ""
    assert default_action(Mesh("x", "dc1", (), Action.DENY)) == "deny"
