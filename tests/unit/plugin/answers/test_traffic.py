from __future__ import annotations

import msgspec
import pytest

from plugin.answers.traffic import ServiceDurations, Traffic, TrafficRow, quantile, rates, traffic
from plugin.workers.counters import Durations, Sum, Totals
from proxy.messages import DURATION_BOUNDS_S


def buckets(**counts: int) -> tuple[int, ...]:
    """``b3=5``: five in the fourth bucket."""
    found = [0] * (len(DURATION_BOUNDS_S) + 1)
    for name, number in counts.items():
        found[int(name[1:])] = number
    return tuple(found)


def test_totals_are_added_up_by_service_and_caller() -> None:
    totals = Totals(
        sums={
            ("db", "web", ""): Sum(2, 10, 20),
            ("db", "web", "client_eof"): Sum(5, 100, 200),
            ("db", "web", "denied"): Sum(3),
            ("db", "web", "dial_failed"): Sum(1),
            ("", "", "not_tls"): Sum(4),
        },
        requests={("api", "web", "2xx", "completed"): 6, ("api", "web", "4xx", "denied"): 2},
        durations={("api", "2xx"): Durations(buckets(b0=6)), ("api", "4xx"): Durations(buckets(b0=1, b3=1))},
    )
    found = traffic(totals)
    strangers, requests, whole = found.rows
    assert (strangers.service, strangers.connections, strangers.denied) == ("", 4, 4)
    assert (requests.requests, requests.denied, requests.errors, requests.connections) == (8, 2, 0, 0)
    assert (whole.open, whole.connections, whole.denied, whole.errors) == (2, 11, 3, 1)
    assert (whole.bytes_received, whole.bytes_sent) == (110, 220)
    assert found.durations == (ServiceDurations("api", buckets(b0=7, b3=1)),)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Traffic) == found


def reading(at_s: float, *rows: TrafficRow, durations: tuple[int, ...] = ()) -> Traffic:
    return Traffic(at_s=at_s, rows=rows, durations=(ServiceDurations("db", durations),) if durations else ())


def test_rates_are_over_the_time_between_two_readings() -> None:
    before = reading(
        10.0, TrafficRow(service="db", source="web", connections=5, bytes_sent=1_000), durations=buckets(b0=50)
    )
    after = reading(
        12.0,
        TrafficRow(service="db", source="web", open=1, connections=9, bytes_sent=3_000, denied=2),
        TrafficRow(service="db", source="batch", connections=2, requests=4),
        TrafficRow(service="idle", source="web", connections=7),
        durations=buckets(b0=50, b1=2),
    )
    before = msgspec.structs.replace(
        before, rows=(*before.rows, TrafficRow(service="idle", source="web", connections=7))
    )
    whole, web, batch, idle, idle_web = rates(before, after, by_source=True)
    assert (whole.service, whole.source, whole.connections, whole.sent) == ("db", "", 3.0, 1_000.0)
    assert (web.source, web.connections, web.denied, web.open, web.p50_s) == ("web", 2.0, 1.0, 1, None)
    assert (batch.source, batch.requests) == ("batch", 2.0)
    assert whole.p50_s == pytest.approx(0.00075)
    assert (idle.service, idle.connections, idle_web.source) == ("idle", 0.0, "web")
    assert [one.source for one in rates(before, after, by_source=False)] == ["", ""]


def test_counters_that_began_anew_make_no_negative_rate() -> None:
    before = reading(10.0, TrafficRow(service="db", source="web", connections=500), durations=buckets(b0=50))
    after = reading(11.0, TrafficRow(service="db", source="web", connections=1), durations=buckets(b0=1))
    whole, _ = rates(before, after, by_source=True)
    assert (whole.connections, whole.p99_s) == (0.0, None)


def test_quantiles_are_those_of_prometheus() -> None:
    bounds = (1.0, 2.0, 4.0)
    assert quantile((), bounds, 0.5) is None
    assert quantile((0, 0, 0, 0), bounds, 0.5) is None
    assert quantile((10, 0, 0, 0), bounds, 0.5) == 0.5
    assert quantile((5, 5, 0, 0), bounds, 0.5) == 1.0
    assert quantile((0, 0, 10, 0), bounds, 0.99) == pytest.approx(3.98)
    assert quantile((0, 0, 0, 3), bounds, 0.5) == 4.0
