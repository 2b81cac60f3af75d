from __future__ import annotations

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from plugin.admin.request_metrics import request_metrics
from plugin.workers.counters import Bound, Cardinality, Dials, Durations, Sum, Totals, totals
from proxy.messages import DURATION_BOUNDS_S, Count, Counters, DialCount, DurationCount, RequestCount
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


def requests(number: int, buckets: tuple[int, ...]) -> Counters:
    return msgspec.structs.replace(
        counters(),
        requests=(RequestCount("api", "web", "2xx", "completed", number),),
        durations=(DurationCount("api", "2xx", buckets, 1.5),),
    )


def test_requests_outlive_a_worker_and_are_shown_as_a_histogram() -> None:
    buckets = (1, 2, *[0] * (len(DURATION_BOUNDS_S) - 2), 4)
    ended = Totals()
    ended.add_ended(requests(7, buckets), reason=CloseReason.DRAIN)
    both = totals(ended, [requests(7, buckets)])
    assert ended.requests == {("api", "web", "2xx", "completed"): 7}
    assert both.requests == {("api", "web", "2xx", "completed"): 14}
    assert both.durations["api", "2xx"] == Durations(tuple(2 * one for one in buckets), 3.0)

    class Collector:
        def collect(self) -> list[Metric]:
            return list(request_metrics(Cardinality(), both, Bound(9)))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    shown = generate_latest(registry).decode()
    assert 'consul_tgw_requests_total{code="2xx",reason="completed",service="api",source="web"} 14.0' in shown
    name, labels = "consul_tgw_request_duration_seconds", 'code="2xx"'
    assert f'{name}_bucket{{{labels},le="0.0005",service="api"}} 2.0' in shown
    assert f'{name}_bucket{{{labels},le="0.001",service="api"}} 6.0' in shown
    assert f'{name}_bucket{{{labels},le="+Inf",service="api"}} 14.0' in shown
    assert f'{name}_count{{{labels},service="api"}} 14.0' in shown
    assert f'{name}_sum{{{labels},service="api"}} 3.0' in shown


def test_callers_beyond_the_limit_are_one() -> None:
    key = ("api", "web", "2xx", "completed")
    cardinality = Cardinality(1)
    assert cardinality.bounded_requests({key: 3}) == {key: 3}
    others = {("api", name, "2xx", "completed"): 2 for name in ("a", "b")}
    assert cardinality.bounded_requests({key: 3, **others}) == {key: 3, ("api", "other", "2xx", "completed"): 4}
