"""The options of commands that write to Consul and then look whether the gateway on this host has followed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from plugin.cli.seconds_option import seconds_option
from plugin.linking.request import DEFAULT_GATEWAY

Command = TypeVar("Command", bound=Callable[..., Any])
WAIT_S = 30.0


def follow_options(command: Command) -> Command:
    """``gateway``, ``dry_run``, ``as_json``, ``wait_s``, ``no_wait``, ``admin_address`` and ``runtime_dir``."""
    gateway_help = "Service name of the gateway."
    for option in (
        click.option(
            "--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files."
        ),
        click.option("--admin-address", default="", metavar="IP:PORT", help="Where the gateway's admin pages are."),
        click.option("--no-wait", is_flag=True, help="Do not ask the gateway on this host whether it has followed."),
        seconds_option("--wait", "wait_s", default=WAIT_S),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("--gateway", default=DEFAULT_GATEWAY, show_default=True, metavar="NAME", help=gateway_help),
    ):
        command = option(command)
    return command
