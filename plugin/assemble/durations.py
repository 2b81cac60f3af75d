"""Durations as Go writes them, which is how Consul's entries hold them."""

from __future__ import annotations

import re
from fractions import Fraction

_UNITS_NS = {
    **{"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000},
    **{"s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000},
}
_MOST_NS = 2**63 - 1
_LONGEST_TEXT = 100
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration_s(value: str | int) -> float:
    """Return seconds: of a text such as ``1m30s``, or of a number of nanoseconds.

    :raises ValueError: when ``value`` is neither (https://pkg.go.dev/time#ParseDuration).
    """
    if isinstance(value, int):
        return _in_range(Fraction(value), "a number of nanoseconds")
    text = value.strip()
    if not text:
        return 0.0
    sign = -1.0 if text.startswith("-") else 1.0
    text = text[1:] if text[0] in "+-" else text
    if text == "0":
        return 0.0
    if not text or len(text) > _LONGEST_TEXT or _PART.sub("", text):
        raise ValueError(f"{value[:_LONGEST_TEXT]!r} is not a duration; write for example 5s, 1m30s or 500ms")
    parts = (Fraction(number) * _UNITS_NS[unit] for number, unit in _PART.findall(text))
    return sign * _in_range(sum(parts, start=Fraction(0)), value)


def _in_range(nanoseconds: Fraction, value: str) -> float:
    """Seconds. :raises ValueError: when Go has no such duration: its nanoseconds are a number of 64 bits."""
    if abs(nanoseconds) > _MOST_NS:
        raise ValueError(f"{value} is longer than the longest duration, 292 years")
    return float(nanoseconds / _UNITS_NS["s"])
