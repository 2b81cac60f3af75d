"""What a worker has room for, and how often it speaks of it."""

from __future__ import annotations

import logging
import resource

import pytest

from plugin.settings import ConsulSettings, GatewaySettings
from proxy.messages import Limits
from proxy.overload import LineBudget, Reminder, Room, connections_for, raise_descriptor_limit

MANY = 1_000_000


def test_each_worker_has_an_equal_share_and_at_least_one() -> None:
    room = Room(Limits(workers=3, connections=10, service_connections=1, pending_handshakes=7), MANY)
    assert (room.connections, room.of_a_service, room.pending_handshakes) == (4, 1, 3)


def test_no_limit_is_what_the_descriptors_allow() -> None:
    assert Room(Limits(connections=0), 1_064).connections == 500
    assert Room(Limits(connections=0), resource.RLIM_INFINITY).connections > MANY
    assert Room(Limits(service_connections=0), MANY).of_a_service == 0


def test_too_few_descriptors_lower_the_limit_and_say_what_is_needed(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(Limits(connections=500), 1_064)
    assert (room.connections, caplog.records) == (500, [])
    assert Room(Limits(connections=501), 1_064).connections == 500
    assert "LimitNOFILE" in caplog.text
    assert "to 1066" in caplog.text
    assert connections_for(0) == 1


def test_the_limit_of_descriptors_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
        assert raise_descriptor_limit() == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_flood_is_told_at_once_and_then_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    reminder = Reminder("limits.reached")
    for tick in range(10_000):
        reminder.note("it is full", 100 + tick / 1_000)
    assert len(caplog.records) == 1
    reminder.note("it is full", 111.0)
    assert "10000 times" in caplog.records[1].getMessage()


def test_strangers_have_a_burst_of_lines_and_then_so_many_a_second() -> None:
    budget = LineBudget()
    now_s = 1_000_000.0
    at_once = sum(budget.spend(now_s) for _ in range(5_000))
    later = sum(budget.spend(now_s + 2) for _ in range(5_000))
    assert (at_once, later) == (500, 100)


def test_what_was_not_chosen_grows_with_the_workers() -> None:
    limits = GatewaySettings(consul=ConsulSettings()).limits(4)
    assert (limits.workers, limits.connections, limits.service_connections) == (4, 40_000, 30_000)
    assert limits.pending_handshakes == 4_000
    chosen = GatewaySettings(consul=ConsulSettings(), max_connections=10, max_pending_handshakes=0).limits(4)
    assert (chosen.connections, chosen.service_connections, chosen.pending_handshakes) == (10, 8, 0)
