from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from plugin.process.notify import ServiceManager
from tests.support.process_limits import descriptors_left


def test_messages_reach_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        told = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        told.ready("serving")
        told.alive()
        told.stopping(2.5)
        assert [manager.recv(100) for _ in range(3)] == [
            b"READY=1\nSTATUS=serving",
            b"WATCHDOG=1",
            b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000",
        ]


def test_a_reload_says_when_it_began(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        before_us = time.monotonic_ns() // 1_000
        ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")}).reloading()
        first, _, second = manager.recv(100).decode().partition("\n")
        assert first == "RELOADING=1"
        assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1_000


def test_an_abstract_socket_is_understood() -> None:
    name = f"consul-tgw-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(5)
        ServiceManager({"NOTIFY_SOCKET": "@" + name}).alive()
        assert manager.recv(100) == b"WATCHDOG=1"


def test_nobody_listening_is_not_an_error(tmp_path: Path) -> None:
    ServiceManager({}).ready("serving")
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("serving")


def test_the_watchdog_is_fed_twice_in_its_time() -> None:
    assert ServiceManager({"WATCHDOG_USEC": "30000000"}).watchdog_interval_s == 15.0
    assert ServiceManager({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_interval_s == 0.0
    assert ServiceManager({"WATCHDOG_USEC": "soon"}).watchdog_interval_s == 0.0
    assert ServiceManager({}).watchdog_interval_s == 0.0


def test_the_watchdog_is_fed_also_when_no_file_can_be_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(str(tmp_path / "notify"))
        ours = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with descriptors_left(os.getpid(), 0):
            ours.alive()
        assert manager.recv(100) == b"WATCHDOG=1"
