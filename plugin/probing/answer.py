"""What a probe found, typed; the only output of ``consul-tgw probe --json``."""

from __future__ import annotations

import msgspec

from plugin.explain.answer import State


class ProbeStep(msgspec.Struct, frozen=True):
    about: str
    state: State
    lines: tuple[str, ...]
    ms: float | None = None
    """How long it took; ``None`` for what was not waited for."""


class ProbeReport(msgspec.Struct, frozen=True):
    service: str
    source: str
    """Empty: the parts that need no caller were probed."""
    steps: tuple[ProbeStep, ...]

    @property
    def good(self) -> bool:
        return all(step.state is not State.BAD for step in self.steps)
