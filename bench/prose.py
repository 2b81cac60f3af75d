"""What ``docs/performance.md`` says beside its figures: the parts of ``prose.md``, by the names in its comments."""

from __future__ import annotations

import re
from pathlib import Path

_PATH = Path(__file__).resolve().parent / "prose.md"
_MARK = re.compile(r"^<!-- ([a-z]+) -->$", re.M)


def prose(name: str) -> list[str]:
    """The lines of a part. :raises KeyError: when there is none of that name."""
    pieces = _MARK.split(_PATH.read_text())
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))[name].strip().splitlines()
