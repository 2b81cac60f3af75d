"""What inputs reach: the arcs of each, and how much of a target's code they cover together."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from pathlib import Path

import coverage

from fuzz.target import Target

Arcs = frozenset[tuple[str, int, int]]


def arcs_of(target: Target, inputs: Iterable[bytes]) -> list[Arcs]:
    """Of each input by itself, within the target's modules."""
    files = [str(file) for file in _files(target)]
    recorder = coverage.Coverage(data_file=None, branch=True, include=files, config_file=False)
    reached = []
    for content in inputs:
        recorder.erase()
        recorder.start()
        # One that breaks the invariant reaches what it reaches: to say so is for the replay of the corpus.
        with contextlib.suppress(Exception):
            target.run(content)
        recorder.stop()
        data = recorder.get_data()
        reached.append(frozenset((file, *arc) for file in data.measured_files() for arc in data.arcs(file) or ()))
    return reached


def lines_covered(target: Target, arcs: Iterable[Arcs]) -> tuple[int, int]:
    """How many lines all of them reach, and how many there are. Lines that run at import are not reached anew."""
    reached = {(file, line) for each in arcs for file, *ends in each for line in ends if line > 0}
    files = _files(target)
    analysed = coverage.Coverage(data_file=None, config_file=False)
    total = sum(len(analysed.analysis2(str(file))[1]) for file in files)
    return len(reached), total


def _files(target: Target) -> list[Path]:
    return [Path(importlib.import_module(name).__file__ or "") for name in target.code]
