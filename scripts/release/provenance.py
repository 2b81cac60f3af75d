"""Says what a release was made from, and holds two builds of it against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

SUMS = "SHA256SUMS"
PROVENANCE = "provenance.json"


def sums(files: Iterable[Path]) -> dict[str, str]:
    """sha256 of each file, by its name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def written_sums(digests: Mapping[str, str]) -> str:
    """As ``sha256sum --check`` reads it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def provenance(
    *,
    commit: str,
    epoch: int,
    version: str,
    python: str,
    platform: str,
    locks: Mapping[str, str],
    made: Mapping[str, str],
) -> str:
    """``epoch``: the time of the commit, seconds since 1970, which all files inside the artefacts have."""
    document = {
        "name": "consul-tgw",
        "version": version,
        "commit": commit,
        "source_date_epoch": epoch,
        "python": python,
        "platform": platform,
        "locks": locks,
        "artefacts": made,
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def differences(first: Mapping[str, str], second: Mapping[str, str]) -> list[str]:
    """What two builds do not have in common. No file at all is no proof, and counts as a difference."""
    if not first:
        return ["nothing was built"]
    return [
        f"{name}: {first.get(name, 'absent')} and {second.get(name, 'absent')}"
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    ]
