"""What a conformance case is, and the table of all of them.

A case answers with an observation: plain facts as a client or an operator sees them. It states what it expects, either
once for both gateways, or once for each together with the decision that says why they differ.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.conformance.stand import Stand, Stands

Observation = Mapping[str, Any]
"""Facts by name, in words that need no explanation in a table."""
Body = Callable[[Stand], Awaitable[Observation]]


class Verdict(enum.StrEnum):
    SAME = "same"
    BETTER = "better on purpose"
    UNEXPLAINED = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    topic: str
    sentence: str
    """What is the case, from the operator's side: ``An explicit link wins over *``."""
    envoy: Observation
    ours: Observation
    decision: str = ""
    """``004``: the page in ``docs/decisions`` that says why the two differ."""


@dataclass(frozen=True, slots=True)
class Row:
    """A case that was run."""

    case: Case
    envoy: Observation | str
    """What was observed, or how the run failed."""
    ours: Observation | str

    @property
    def verdict(self) -> Verdict:
        if (self.envoy, self.ours) != (self.case.envoy, self.case.ours):
            return Verdict.UNEXPLAINED
        return Verdict.SAME if self.envoy == self.ours else Verdict.BETTER


@dataclass(slots=True)
class Table:
    """The cases that this process has declared and run."""

    declared: list[Case] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


TABLE = Table()


def conformance(
    topic: str,
    sentence: str,
    *,
    expect: Observation | None = None,
    envoy: Observation | None = None,
    ours: Observation | None = None,
    decision: str = "",
    own_consul: Mapping[str, Any] | None = None,
) -> Callable[[Body], Callable[..., Awaitable[None]]]:
    """Make a test of a case's body, which gets a :class:`Stand` and returns what it observed.

    ``expect`` is for both gateways. Where they differ, ``envoy`` and ``ours`` say how and ``decision`` why.
    ``own_consul`` gives the case a Consul and gateways of its own: for what changes the whole mesh (``mesh``,
    ``proxy-defaults``), or with options of :class:`Stands`.
    """
    if expect is not None:
        envoy = ours = expect
    if envoy is None or ours is None:
        raise TypeError(f"{sentence}: say what to expect: expect=..., or envoy=... and ours=...")
    if (envoy != ours) != bool(decision):
        raise TypeError(f"{sentence}: a decision belongs to a difference, and a difference to a decision")
    case = Case(topic=topic, sentence=sentence, envoy=envoy, ours=ours, decision=decision)
    TABLE.declared.append(case)

    def decorate(body: Body) -> Callable[..., Awaitable[None]]:
        async def run_on(stands: Stands) -> None:
            row = Row(case, *await _observe(body, stands))
            TABLE.rows.append(row)
            assert row.envoy == case.envoy, f"Envoy: {row.envoy!r}, the case says {case.envoy!r}"
            assert row.ours == case.ours, f"consul-tgw: {row.ours!r}, the case says {case.ours!r}"

        async def on_shared(stands: Stands) -> None:
            await run_on(stands)

        async def on_own(own_stands: Callable[..., Awaitable[Stands]]) -> None:
            await run_on(await own_stands(**(own_consul or {})))

        test: Callable[..., Awaitable[None]] = on_shared if own_consul is None else on_own
        # Not functools.wraps: pytest would follow it to the parameter of the body, and miss the fixtures.
        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        marked: Callable[..., Awaitable[None]] = pytest.mark.asyncio(loop_scope="session")(test)
        return marked

    return decorate


async def _observe(body: Body, stands: Stands) -> tuple[Observation | str, Observation | str]:
    async def on(stand: Stand) -> Observation | str:
        async with stand:
            try:
                return dict(await body(stand))
            except AssertionError as error:
                return f"failed: {error}"

    results = await asyncio.gather(*(on(stand) for stand in stands.fresh()))
    return results[0], results[1]
