"""Runs targets under atheris, one after the other: ``python -m fuzz [TARGET ...] [--seconds N]``.

Each runs in a process of its own, which ends by itself when its time is over. Afterwards a table says how many inputs
were tried and how much of the code under test they and the corpus reach.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass

from fuzz import target as targets
from fuzz.coverage_of import arcs_of, lines_covered
from fuzz.target import Target

_EXECUTED = re.compile(r"stat::number_of_executed_units: (\d+)")
_LONGEST_INPUT = 4_096
_SLOWEST_INPUT_S = 10
_MARGIN_S = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    target: Target
    executions: int
    held: bool


def fuzz(target: Target, seconds: int) -> Outcome:
    options = [f"-max_total_time={seconds}", f"-max_len={_LONGEST_INPUT}", f"-timeout={_SLOWEST_INPUT_S}"]
    command = [sys.executable, "-m", "fuzz.guided", target.name, *options, "-print_final_stats=1", "-verbosity=0"]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=seconds + _MARGIN_S, check=False)
    found = _EXECUTED.search(ended.stderr)
    held = ended.returncode == 0 and found is not None
    if not held:
        sys.stderr.write(ended.stderr[-4_000:])
    return Outcome(target, int(found[1]) if found else 0, held)


def row(outcome: Outcome) -> str:
    target = outcome.target
    inputs = [path.read_bytes() for path in (*target.entries(), *target.found.glob("*")) if path.is_file()]
    reached, lines = lines_covered(target, arcs_of(target, inputs))
    verdict = "" if outcome.held else " BROKEN"
    entries = len(target.entries())
    return f"| {target.name} | {outcome.executions:,} | {entries} | {reached} of {lines} lines |{verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*", choices=[*targets.names(), []], help="all of them without a name")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    held = True
    for name in options.targets or targets.names():
        outcome = fuzz(targets.load(name), options.seconds)
        held = held and outcome.held
        sys.stdout.write(row(outcome) + "\n")
        sys.stdout.flush()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
