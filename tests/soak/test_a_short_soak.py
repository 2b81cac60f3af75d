"""The soak itself: a short one from a fixed seed, so that it cannot rot, and that it finds what it is to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.chaos import FAULTS
from soak.run import Plan, soak

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_short_soak_finds_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    figures, ledger = await soak(Plan(seed=4, seconds=20.0, pumps=8, idle=20), tmp_path, said.append)
    assert ledger.violations == [], "\n".join(ledger.events)
    assert set(said) <= set(FAULTS)
    assert sum(figures.faults.values()) >= 2
    assert figures.verified_bytes > 1_000_000
    assert figures.counts["rounds"] > 50
    assert figures.samples > 3
