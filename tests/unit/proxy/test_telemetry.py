"""Totals by service, source and reason; live connections under the empty reason."""

from __future__ import annotations

from proxy.messages import DURATION_BOUNDS_S, Count, DialCount, RequestCount
from proxy.records.telemetry import Telemetry


def test_closed_and_live_connections_are_counted_apart() -> None:
    telemetry = Telemetry()
    telemetry.closed("db", "web", "client_eof", 10, 20)
    telemetry.closed("db", "web", "client_eof", 1, 2)
    telemetry.closed("db", "batch", "denied", 0, 0)
    counters = telemetry.counters([("db", "web", 5, 6), ("db", "web", 1, 1), ("", "", 0, 0)], pending_handshakes=1)
    assert set(counters.counts) == {
        Count("db", "web", "client_eof", 2, 11, 22),
        Count("db", "batch", "denied", 1, 0, 0),
        Count("db", "web", "", 2, 6, 7),
        Count("", "", "", 1, 0, 0),
    }
    assert (counters.open_connections, counters.pending_handshakes) == (3, 1)


def test_failed_attempts_are_added_up_by_service() -> None:
    telemetry = Telemetry()
    telemetry.dialled("db", failures=3, ejections=1, shortages=0)
    telemetry.dialled("db", failures=0, ejections=0, shortages=2)
    telemetry.dialled("ldap", failures=1, ejections=0, shortages=0)
    counted = telemetry.counters([], pending_handshakes=0).dials
    assert set(counted) == {DialCount("db", 3, 1, 2), DialCount("ldap", 1, 0, 0)}


def test_requests_are_counted_by_how_they_were_answered_and_for_how_long_they_took() -> None:
    telemetry = Telemetry()
    telemetry.requested("db", "web", 200, "completed", 0.004)
    telemetry.requested("db", "web", 204, "completed", 0.005)
    telemetry.requested("db", "api", 403, "denied", 0.0)
    telemetry.requested("db", "web", 0, "client_reset", 4_000.0)
    counters = telemetry.counters([], pending_handshakes=0)
    assert set(counters.requests) == {
        RequestCount("db", "web", "2xx", "completed", 2),
        RequestCount("db", "api", "4xx", "denied", 1),
        RequestCount("db", "web", "none", "client_reset", 1),
    }
    durations = {one.code_class: one for one in counters.durations}
    assert durations["2xx"].buckets[DURATION_BOUNDS_S.index(0.005)] == 2
    assert durations["none"].buckets[-1] == 1
    assert round(durations["2xx"].sum_s, 6) == 0.009
    assert [sum(one.buckets) for one in counters.durations] == [2, 1, 1]
