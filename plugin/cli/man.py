"""``consul-tgw man``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from plugin.errors import ConfigError
from plugin.manual import PROGRAM, pages
from plugin.version import version_text


@click.command()
@click.argument("command", nargs=-1, metavar="[COMMAND]...")
@click.option("--directory", type=click.Path(path_type=Path), metavar="PATH", help="Write every page into this folder.")
def man(command: tuple[str, ...], directory: Path | None) -> None:
    """Print the manual page of a command, or write all of them.

    \b
    consul-tgw man connections | man -l -
    consul-tgw man --directory /usr/local/share/man/man1
    """
    from plugin.cli import commands

    # Reproducible builds: https://reproducible-builds.org/specs/source-date-epoch/
    made = pages(commands, version_text(), float(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
    if directory is None:
        name = "-".join((PROGRAM, *command))
        if f"{name}.1" not in made:
            raise ConfigError(f"there is no command {' '.join(command)}; `{PROGRAM} --help` lists them")
        click.echo(made[f"{name}.1"], nl=False)
        return
    if command:
        raise ConfigError("--directory writes every page; leave the command out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for file, text in made.items():
            (directory / file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write to --directory {directory}: {error.strerror}") from error
