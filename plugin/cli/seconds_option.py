"""Options that are a number of seconds, of every command that has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Seconds(click.FloatRange):
    """A finite number. ``nan`` is not below any minimum, and would make a timer that never or always comes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def seconds_option(
    *names: str, default: float, minimum: float = 0, explained: bool = False, **options: Any
) -> Callable[[F], F]:
    """``explained``: the help text says what the default means."""
    return click.option(
        *names,
        type=Seconds(minimum),
        default=default,
        show_default=not explained,
        metavar="SECONDS",
        **options,
    )
