"""Durations as Go writes them, which is how Consul's entries hold them."""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration_s(value: str | int) -> float:
    """Return seconds: of a text such as ``1m30s``, or of a number of nanoseconds.

    :raises ValueError: when ``value`` is neither (https://pkg.go.dev/time#ParseDuration).
    """
    if isinstance(value, int):
        return value * 1e-9
    text = value.strip()
    if not text:
        return 0.0
    sign = -1.0 if text.startswith("-") else 1.0
    text = text[1:] if text[0] in "+-" else text
    if text == "0":
        return 0.0
    if not text or _PART.sub("", text):
        raise ValueError(f"{value!r} is not a duration; write for example 5s, 1m30s or 500ms")
    return sign * sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
