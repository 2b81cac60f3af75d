"""Lengths and points of time as people read them."""

from __future__ import annotations

import time


def duration(seconds: float) -> str:
    """``3d 4h``, ``2h 5m``, ``40s``: the two largest units."""
    left = int(abs(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return ("-" if seconds <= -1 else "") + " ".join(parts[:2])


def point(unix_s: float) -> str:
    """``2026-01-31 23:59:59 UTC``"""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(unix_s))
