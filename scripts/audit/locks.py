"""Reads pip's lock files and holds them against what pyproject.toml asks for.

It resolves nothing: it compares names, versions and specifiers, so that it needs no network. It must not accept a line
that it cannot read: a lock either pins with hashes, or is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"[a-z+]+://|(^|\s)(-i|-f|--(index-url|extra-index-url|find-links|trusted-host))\b| @ ", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One package of a lock. ``requirement`` keeps the marker that says on which platforms it is for."""

    requirement: Requirement
    version: str
    hashes: int

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    def applies_here(self) -> bool:
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read_lock(text: str) -> tuple[tuple[Pin, ...], tuple[str, ...]]:
    """The pins of a lock, and what is wrong with its lines."""
    pins, faults = [], []
    for line in _logical_lines(text):
        if _ADDRESS.search(line):
            faults.append(f"names a place to install from: {line[:80]}")
            continue
        pin = _pin(line)
        if pin is None:
            faults.append(f"not a pinned version: {line[:80]}")
            continue
        pins.append(pin)
        if not pin.hashes:
            faults.append(f"{pin.name} {pin.version} has no sha256 hash")
    return tuple(pins), tuple(faults)


def unmet(asked: Iterable[str], pins: Sequence[Pin]) -> list[str]:
    """What of ``asked`` (requirements as pyproject.toml writes them) the pins do not fulfil."""
    faults = []
    for text in asked:
        requirement = Requirement(text)
        held = [pin for pin in pins if pin.name == canonicalize_name(requirement.name)]
        if not held:
            faults.append(f"lacks {text}")
        faults += [
            f"has {pin.name} {pin.version}, and {text} is asked for"
            for pin in held
            if not requirement.specifier.contains(pin.version, prereleases=True)
        ]
    return faults


def disagreements(first: Sequence[Pin], second: Sequence[Pin]) -> list[str]:
    """Packages that both locks have, in different versions: what is tested would not be what is released."""
    versions: dict[str, set[str]] = {}
    for pin in first:
        versions.setdefault(pin.name, set()).add(pin.version)
    return [
        f"has {pin.name} {pin.version}, and the other one {', '.join(sorted(versions[pin.name]))}"
        for pin in second
        if pin.name in versions and pin.version not in versions[pin.name]
    ]


def _logical_lines(text: str) -> Iterable[str]:
    joined = text.replace("\\\n", " ")
    return (line for raw in joined.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip()))


def _pin(line: str) -> Pin | None:
    hashes = len(_HASH.findall(line))
    try:
        requirement = Requirement(_HASH.sub("", line).strip())
    except InvalidRequirement:
        return None
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith(".*"):
        return None
    return Pin(requirement=requirement, version=specifiers[0].version, hashes=hashes)
