"""Takes into the corpora what adds to them: ``python -m fuzz.keep [TARGET ...]``.

Of the inputs found on this machine, smallest first, those are copied that reach an arc which nothing before them does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz import target as targets
from fuzz.coverage_of import arcs_of
from fuzz.target import Target

LARGEST = 4_096
"""Bytes of an input that is worth keeping with the code."""


def keep(target: Target) -> int:
    """Return how many were added."""
    target.corpus.mkdir(parents=True, exist_ok=True)
    known: set[tuple[str, int, int]] = set()
    for arcs in arcs_of(target, [path.read_bytes() for path in target.entries()]):
        known |= arcs
    added = 0
    inputs = [path.read_bytes() for path in _found(target)]
    for content, arcs in zip(inputs, arcs_of(target, inputs), strict=True):
        if arcs - known:
            known |= arcs
            (target.corpus / targets.name_of(content)).write_bytes(content)
            added += 1
    return added


def _found(target: Target) -> list[Path]:
    files = [path for path in target.found.glob("*") if path.is_file() and path.stat().st_size <= LARGEST]
    return sorted(files, key=lambda path: (path.stat().st_size, path.name))


def main() -> None:
    for name in sys.argv[1:] or targets.names():
        added = keep(targets.load(name))
        sys.stdout.write(f"{name}: {added} added\n")


if __name__ == "__main__":
    main()
