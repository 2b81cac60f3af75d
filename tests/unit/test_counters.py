from __future__ import annotations

from plugin.workers.counters import Cardinality, Dials, Sum, Totals, totals
from proxy.messages import Count, Counters, DialCount
from proxy.model import CloseReason


def counters(*counts: Count, open_connections: int = 0) -> Counters:
    return Counters(counts, open_connections, 1, 10, 3, (DialCount("legacy", 2, 1, 4),))


def test_workers_are_added_up() -> None:
    one = counters(Count("legacy", "web", "client_eof", 2, 10, 20), open_connections=1)
    two = counters(
        Count("legacy", "web", "client_eof", 3, 1, 2), Count("legacy", "web", "", 4, 0, 0), open_connections=4
    )
    result = totals(Totals(), [one, two])
    assert result.sums["legacy", "web", "client_eof"] == Sum(5, 11, 22)
    assert result.sums["legacy", "web", ""] == Sum(4, 0, 0)
    assert (result.open_connections, result.accepted, result.policy_closed) == (5, 20, 6)
    assert result.dials == {"legacy": Dials(4, 2, 8)}


def test_totals_outlive_a_worker_and_its_open_connections_end_with_it() -> None:
    ended = Totals()
    last = counters(Count("legacy", "web", "", 4, 100, 200), open_connections=4)
    ended.add_ended(last, reason=CloseReason.INTERNAL)
    result = totals(ended, [])
    assert result.sums == {("legacy", "web", "internal"): Sum(4, 100, 200)}
    assert (result.open_connections, result.pending_handshakes, result.accepted) == (0, 0, 10)
    assert result.dials == {"legacy": Dials(2, 1, 4)}


def test_asking_does_not_change_what_has_ended() -> None:
    ended = Totals()
    live = [counters(Count("legacy", "web", "client_eof", 2, 10, 20))]
    assert totals(ended, live) == totals(ended, live)
    assert ended == Totals()


def test_labels_are_bounded_and_exported_series_stay() -> None:
    cardinality = Cardinality(1)
    assert cardinality.bounded({("s", "a", "x"): Sum(1)}) == {("s", "a", "x"): Sum(1)}
    later = {("s", "b", "x"): Sum(50), ("s", "c", "x"): Sum(50), ("s", "a", "x"): Sum(2)}
    assert cardinality.bounded(later) == {("s", "a", "x"): Sum(2), ("s", "other", "x"): Sum(100)}
