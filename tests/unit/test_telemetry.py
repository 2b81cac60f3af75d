"""Totals by service, source and reason; live connections under the empty reason."""

from __future__ import annotations

from proxy.messages import Count, DialCount
from proxy.telemetry import Telemetry


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
