"""What a run of the comparison does about workloads that fail."""

from __future__ import annotations

from bench.comparison import attempt
from bench.world import Findings
from plugin.errors import StartError


def _failing(times: int) -> tuple[list[int], object]:
    calls: list[int] = []

    async def measure() -> None:
        calls.append(1)
        if len(calls) <= times:
            raise StartError("echo to 127.0.0.1:1: 1 failed,\nthe first with a reset")

    return calls, measure


async def _attempt(times: int) -> tuple[int, Findings]:
    calls, measure = _failing(times)
    findings = Findings()
    await attempt(findings, "Echo", measure, lambda _: None)  # type: ignore[arg-type]
    return len(calls), findings


async def test_what_works_is_measured_once() -> None:
    assert await _attempt(0) == (1, Findings())


async def test_what_fails_once_is_measured_again_and_told() -> None:
    calls, findings = await _attempt(1)
    assert (calls, findings.failures) == (2, [])
    assert findings.remarks == [
        "failed once, and was measured again: Echo: echo to 127.0.0.1:1: 1 failed,; the first with a reset"
    ]


async def test_what_fails_again_is_a_failure_of_the_run_and_ends_nothing_else() -> None:
    calls, findings = await _attempt(2)
    assert calls == 2
    assert len(findings.failures) == 1
