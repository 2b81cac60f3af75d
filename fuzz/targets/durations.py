"""Any text or number is a finite number of seconds that Go could hold, the exact sum of its parts, or ValueError."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

from plugin.assemble.durations import duration_s

CODE = ("plugin.assemble.durations",)

_UNITS = (("ns", -9), ("us", -6), ("µs", -6), ("μs", -6), ("ms", -3), ("s", 0))


def run(data: bytes) -> None:
    if data[:1] == b"#":
        _number(int.from_bytes(data[1:], "big", signed=True))
    else:
        _text(data.decode("utf-8", "replace"))


def _number(nanoseconds: int) -> None:
    try:
        seconds = duration_s(nanoseconds)
    except ValueError:
        assert abs(nanoseconds) >= 2**63 - 1
        return
    assert math.isclose(seconds * 1e9, nanoseconds, rel_tol=1e-12)


def _text(text: str) -> None:
    try:
        seconds = duration_s(text)
    except ValueError:
        return
    assert abs(seconds) <= 2**63 / 1e9
    assert math.isclose(seconds, float(_independently(text.strip())), rel_tol=1e-9)


def _independently(text: str) -> Decimal:
    """By taking numbers and units off the front, in decimal arithmetic."""
    negative, text = text.startswith("-"), text.lstrip("+-") if text[:1] in ("+", "-") else text
    total = Decimal(0)
    with localcontext() as context:
        context.prec = 200
        while text and text != "0":
            digits = text[: len(text) - len(text.lstrip("0123456789."))]
            text = text[len(digits) :]
            unit, factor = max(_matching(text), key=lambda one: len(one[0]))
            total += Decimal(digits) * factor
            text = text[len(unit) :]
    return -total if negative else total


def _matching(text: str) -> list[tuple[str, Decimal]]:
    units = [(unit, Decimal(10) ** power) for unit, power in _UNITS]
    units += [("m", Decimal(60)), ("h", Decimal(3600))]
    return [(unit, factor) for unit, factor in units if text.startswith(unit)]
