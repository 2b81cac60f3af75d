"""Runs ``consul-tgw`` as an operator types it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.eventually import SCALE
from tests.support.secrecy import OUTPUT

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    output: str
    errors: str

    @property
    def json(self) -> dict[str, Any]:
        """Of a command that was told ``--json``."""
        decoded: dict[str, Any] = json.loads(self.output)
        return decoded

    @property
    def findings(self) -> dict[str, list[dict[str, str]]]:
        """Of ``check --json``: what is not ``ok``, by service; under an empty name what all share."""
        report = self.json
        groups = {"": report["findings"]} | {one["name"]: one["findings"] for one in report["services"]}
        wrong = {name: [one for one in found if one["level"] != "ok"] for name, found in groups.items()}
        return {name: found for name, found in wrong.items() if found}


async def consul_tgw(*arguments: str, environment: Mapping[str, str]) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**environment, "COLUMNS": "200"},
    )
    try:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    OUTPUT.learn_environment(environment)
    assert OUTPUT.feed(f"consul-tgw {arguments[0]}", output + errors) == []
    return Said(code=process.returncode, output=output.decode(), errors=errors.decode())
