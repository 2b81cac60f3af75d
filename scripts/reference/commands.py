"""Every command with its arguments and flags, from the tree of commands: what ``--help`` says is what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from plugin.cli import commands as root
from plugin.manual import PROGRAM
from scripts.reference.text import code, prose, table

_HEAD = """\
# Commands and flags

NOTICE
What they print, when to use which, and exit codes: [commands.md](../commands.md).

"""


def page() -> str:
    context = click.Context(root, info_name=PROGRAM)
    return (_HEAD + "".join(_section(*one) for one in _tree(root, context, ()))).rstrip() + "\n"


def _tree(
    group: click.Group, context: click.Context, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, context, name)
        yield (*path, name), command, inner
        if isinstance(command, click.Group):
            yield from _tree(command, inner, (*path, name))


def _section(path: tuple[str, ...], command: click.Command, context: click.Context) -> str:
    usage = " ".join([PROGRAM, *path, *command.collect_usage_pieces(context)])
    records = [
        record
        for one in command.get_params(context)
        if not getattr(one, "hidden", False) and (record := one.get_help_record(context)) is not None
    ]
    text = f"## {' '.join(path)}\n\n" + "".join(_paragraphs(command.help or "")) + f"```\n{usage}\n```\n\n"
    if records:
        text += table(("Flag", ""), ((code(names), prose(help_).replace("|", "\\|")) for names, help_ in records))
    return text


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.lstrip().startswith("\b"):
            lines = [line.strip() for line in paragraph.replace("\b", "").strip().splitlines()]
            yield "```\n" + "\n".join(lines) + "\n```\n\n"
        elif paragraph.strip():
            yield prose(paragraph) + "\n\n"
