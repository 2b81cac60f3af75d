"""Manual pages, made from the commands themselves (man(7) macros): what --help says is what the pages say."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import click

PROGRAM = "consul-tgw"
_EXIT = (
    ("0", "done"),
    ("1", "the finding of the command, said in its own page"),
    ("2", "wrong usage, no gateway found, or something that could not be done"),
    ("130", "ended by Ctrl-C"),
)


def pages(root: click.Group, version: str, epoch_s: float) -> dict[str, str]:
    """The text of each page by its file name. ``epoch_s`` is the date in them, Unix time."""
    date = time.strftime("%Y-%m-%d", time.gmtime(epoch_s))
    context = click.Context(root, info_name=PROGRAM)
    return {
        f"{'-'.join(path)}.1": "".join(_page(command, inner, path, version, date))
        for path, command, inner in _tree(root, context, (PROGRAM,))
    }


def _tree(
    command: click.Command, context: click.Context, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    yield path, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _tree(inner, click.Context(inner, context, name), (*path, name))


def _page(
    command: click.Command, context: click.Context, path: tuple[str, ...], version: str, date: str
) -> Iterator[str]:
    name, title = "-".join(path), " ".join(path)
    first, _, rest = (command.help or "").partition("\n\n")
    yield f'.TH "{_escaped(name.upper())}" 1 "{date}" "{PROGRAM} {_escaped(version)}" "{PROGRAM}"\n'
    yield f".SH NAME\n{_escaped(name)} \\- {_escaped(_line(first).rstrip('.'))}\n"
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f".SH SYNOPSIS\n.B {_escaped(title)}\n{_escaped(pieces)}\n"
    yield f".SH DESCRIPTION\n{_escaped(_line(first))}\n"
    yield from _paragraphs(rest)
    options = [record for one in command.get_params(context) if (record := _record(one, context)) is not None]
    if options:
        yield ".SH OPTIONS\n"
    for names, text in options:
        yield f".TP\n.B {_escaped(names)}\n{_escaped(_line(text))}\n"
    if isinstance(command, click.Group):
        yield ".SH COMMANDS\n"
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None:
                yield f".TP\n.BR {_escaped(f'{name}-{inner}')} (1)\n{_escaped(found.get_short_help_str(200))}\n"
    yield ".SH EXIT STATUS\n"
    yield from (f".TP\n.B {code}\n{_escaped(meaning)}\n" for code, meaning in _EXIT)
    if command.epilog:
        yield f".SH ENVIRONMENT\n{_escaped(_line(command.epilog))}\n"
    if len(path) > 1:
        yield f".SH SEE ALSO\n.BR {_escaped(PROGRAM)} (1)\n"


def _record(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    return None if getattr(parameter, "hidden", False) else parameter.get_help_record(context)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.lstrip().startswith("\b"):
            lines = "\n".join(_escaped(line.strip()) for line in paragraph.replace("\b", "").strip().splitlines())
            yield f".PP\n.nf\n{lines}\n.fi\n"
        elif paragraph.strip():
            yield f".PP\n{_escaped(_line(paragraph))}\n"


def _line(text: str) -> str:
    return " ".join(text.replace("\b", "").split())


def _escaped(text: str) -> str:
    """For roff: a backslash is its own, a hyphen stays one that can be copied, no line begins with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)
