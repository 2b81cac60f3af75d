"""``consul-tgw support-bundle``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plugin.cli.admin_client import find
from plugin.cli.gateway_options import gateway_options
from plugin.cli.screen import console, size
from plugin.process.runtime_dir import base_directory, gateway_directories
from plugin.support.bundle import Content, gather, parts, write
from plugin.support.redaction import secrets_of

EXIT_INCOMPLETE = 1


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path), metavar="[FILE.tar.gz]")
@click.option("--json", "as_json", is_flag=True, help="Print what is in it as JSON.")
@gateway_options
def support_bundle(file: Path | None, as_json: bool, gateway: str, admin_address: str, runtime_dir: Path | None) -> int:
    """Write what helps to understand a running gateway into one file, without keys, tokens and passwords.

    It sends nothing anywhere. What is in it is listed; all of it is text, to be read before it is given away. Run it
    where the gateway runs, with its environment: it also asks Consul, and runs consul-tgw check.

    Exit code: 0, 1 when a part of it could not be had, 2 no gateway found, or the file cannot be written.
    """
    found = find(service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    now_s = time.time()
    path = file or Path(time.strftime("consul-tgw-support-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime(now_s)))
    tokens = [directory / "admin-token" for directory in gateway_directories(base_directory(runtime_dir))]
    secrets = secrets_of(os.environ, tokens) | ({found.secret.encode()} if found.secret else set())
    with Console(stderr=True).status("gathering") if sys.stderr.isatty() else _Silence() as progress:
        gathered = gather(
            parts(found.fetch, os.environ), secrets, begun=lambda name: progress.update(f"gathering {name}")
        )
    write(gathered, path, now_s)
    if as_json:
        told = msgspec.json.encode({"file": str(path), "contents": list(gathered)})
        click.echo(msgspec.json.format(told, indent=2).decode())
    else:
        _print(path, list(gathered))
    return EXIT_INCOMPLETE if any(one.problem for one in gathered) else 0


class _Silence:
    """Where nobody looks."""

    def __enter__(self) -> _Silence:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, _: str) -> None: ...


def _print(path: Path, contents: list[Content]) -> None:
    table = Table("file", "size", "what is in it")
    for one in contents:
        what = f"[yellow]not there: {escape(one.problem)}[/]" if one.problem else one.what
        table.add_row(one.name, size(one.size), what)
    console().print(table)
    click.echo(f"{path}: it was sent nowhere; read it before you give it to anybody")
