"""Which running gateway is meant: the options of every command that asks one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def gateway_options(command: F) -> F:
    """Adds ``gateway``, ``admin_address`` and ``runtime_dir``. ``--service`` is left to mean an external service."""
    path = click.Path(path_type=Path)
    for decorate in (
        click.option("--runtime-dir", type=path, help="Where the gateway keeps its runtime files."),
        click.option("--admin-address", default="", metavar="IP:PORT|unix:///PATH", help="Of the gateway meant."),
        click.option("--gateway", default="", metavar="NAME", help="Service name or ID, when several run here."),
    ):
        command = decorate(command)
    return command
