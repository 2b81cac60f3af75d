from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from rich.console import Console

from plugin import cli
from plugin.addresses import HostPort
from plugin.check import Finding, Report, ServiceReport
from plugin.cli import _NAMES, admin_client, commands
from plugin.cli.check import render as render_check
from plugin.cli.run import gateway_settings, run
from plugin.cli.status import duration, render
from plugin.errors import ConfigError
from tests.unit.plugin.admin.test_admin import READY


def settings(*arguments: str) -> Any:
    context = run.make_context("run", ["--service", "gw", "--address", "10.0.0.5:8443", *arguments])
    return gateway_settings(context.params)


def ended(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["consul-tgw", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_two_flags_are_enough() -> None:
    read = settings()
    assert (read.service, read.id, read.address, read.port) == ("gw", "gw", "10.0.0.5", 8443)
    assert (read.admin_address, read.admin_port, read.admin_port_chosen) == ("127.0.0.1", 19090, False)
    assert (read.register, read.access_log, read.workers) == (True, None, 0)


def test_every_flag_reaches_its_setting() -> None:
    read = settings(
        *(
            "--service-id",
            "gw-1",
            "--admin-address",
            "[::1]:0",
            "--workers",
            "3",
            "--meta",
            "team=a",
            "--meta",
            "k=v=w",
        ),
        *(
            "--proxy-config",
            '{"connect_timeout_ms": 2000}',
            "--no-register",
            "--access-log",
            "off",
            "--log-level",
            "debug",
        ),
        *("--log-format", "json", "--drain-timeout", "5", "--runtime-dir", "/run/x"),
    )
    assert (read.id, read.admin_address, read.admin_port, read.admin_port_chosen) == ("gw-1", "::1", 0, True)
    assert (read.workers, read.meta, read.proxy_config) == (3, {"team": "a", "k": "v=w"}, {"connect_timeout_ms": 2000})
    assert (read.register, read.access_log, read.log_level, read.log_format) == (False, "off", "debug", "json")
    assert (read.drain_timeout_s, read.runtime_dir) == (5.0, Path("/run/x"))


def test_name_servers_are_addresses_with_ports() -> None:
    assert settings().dns_servers == ()
    read = settings("--dns-server", "127.0.0.1:8600", "--dns-server", "[::1]:53")
    assert read.dns_servers == (HostPort("127.0.0.1", 8600), HostPort("::1", 53))
    with pytest.raises(ConfigError, match="--dns-server"):
        settings("--dns-server", "127.0.0.1")


def test_every_address_flag_reaches_its_setting() -> None:
    more = HostPort("10.0.0.6", 8443)
    read = settings("--address", str(more), "--wan-address", "[2001:db8::1]:443")
    assert (read.address, read.more_addresses, read.wan_address) == ("10.0.0.5", (more,), HostPort("2001:db8::1", 443))
    bound = settings("--bind-address", "a=10.0.0.6:8443").bind_addresses
    assert bound == {"a": more}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--meta", "novalue"), "--meta"),
        (("--proxy-config", "{"), "--proxy-config"),
        (("--proxy-config", "[]"), "--proxy-config"),
        (("--admin-address", "nowhere"), "--admin-address"),
        (("--address", "nowhere"), "--address"),
        (("--wan-address", "nowhere"), "--wan-address"),
        (("--bind-address", "10.0.0.5:1"), "NAME=IP:PORT"),
        (("--bind-address", "a=nowhere"), "--bind-address a"),
        (("--bind-address", "a=10.0.0.5:1", "--bind-address", "a=10.0.0.6:1"), "given twice"),
    ],
)
def test_an_unusable_flag_is_named(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        settings(*arguments)


def test_errors_end_as_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = ended("run", "--service", "gw", "--address", "nowhere", monkeypatch=monkeypatch)
    assert code == 2
    assert capsys.readouterr().err.startswith("consul-tgw: --address 'nowhere' is not IP:PORT")


def test_no_gateway_to_ask_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ended("status", "--runtime-dir", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert "no running gateway was found" in capsys.readouterr().err


def test_a_start_does_not_wait_for_what_other_commands_need() -> None:
    code = "import sys, plugin.cli.run; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"plugin", "click"} <= set(said)
    assert not {"aiohttp", "consul", "cryptography", "rich", "requests", "urllib3"} & set(said)


def test_the_commands_are_all_there() -> None:
    context = click.Context(commands)
    assert {commands.get_command(context, name).name for name in commands.list_commands(context)} == set(_NAMES)  # type: ignore[union-attr]
    assert commands.get_command(context, "main") is None


@pytest.mark.parametrize("command", _NAMES)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(command, "--help", monkeypatch=monkeypatch) == 0
    assert "Usage:" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "-0.1", "soon", "1e999"])
@pytest.mark.parametrize("flag", ["--drain-delay", "--handshake-timeout", "--max-state-age", "--handover-timeout"])
def test_seconds_are_a_finite_number(flag: str, value: str) -> None:
    with pytest.raises(click.BadParameter, match=r"seconds|range|valid"):
        settings(f"{flag}={value}")


def test_a_mistyped_flag_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("run", "--adress", "x", monkeypatch=monkeypatch) == click.UsageError.exit_code
    assert "--adress" in capsys.readouterr().err


def printed(width: int = 160) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=width, highlight=False, color_system=None), stream


def test_status_shows_what_is_served_and_why_not() -> None:
    console, stream = printed()
    render(msgspec.structs.replace(READY, ready=False, not_ready=("roots [are] unknown",)), console, now_s=100.0)
    text = stream.getvalue()
    for expected in (
        "not ready: roots [are] unknown",
        "broken: no CAFile",
        "not served",
        "roots: away",
        "1.8.7",
        "mesh: no such kind here",
        "registered, passing",
    ):
        assert expected in text


def test_check_shows_the_rule_that_is_missing() -> None:
    console, stream = printed()
    rule = 'service "legacy" { policy = "write" }'
    report = Report("gw", "http://x", (), (ServiceReport("legacy", (Finding("missing", "no leaf", rule),)),))
    render_check(report, console)
    assert "missing  no leaf" in stream.getvalue()
    assert f"ACL rule: {rule}" in stream.getvalue()
    assert not report.ok


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (3660, "1h 1m"), (90_000, "1d 1h"), (-120, "-2m")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_interrupt_ends_a_question_although_somebody_swallows_cancelling() -> None:
    async def asked() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(signal.raise_signal, signal.SIGINT)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        admin_client._run(asked())
    assert signal.getsignal(signal.SIGINT) is former
