"""Text of the code as Markdown: docstrings, cells of tables, code with bars in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def prose(docstring: str) -> str:
    """One line of Markdown of a docstring in reStructuredText."""
    text = " ".join(docstring.split())
    text = re.sub(r":\w+:`~?([^`]+)`", lambda found: f"`{found[1].rpartition('.')[2]}`", text)
    return text.replace("``None``", "``null``").replace("``", "`")


def code(text: str) -> str:
    """A bar ends a cell even within backticks, so that such code is written as HTML."""
    if "|" not in text:
        return f"`{text}`"
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    return f"<code>{escaped}</code>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, with an empty line after it. Cells are Markdown already."""
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |"), "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n\n"
