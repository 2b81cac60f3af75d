"""Reads what pip-audit found, and how much of the lock it could not look up.

pip-audit ends with 0 and says "no known vulnerabilities" also when it found no package at its service. Here a
package that was not looked up is counted as such, and one that its answer leaves out as well.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass

from packaging.utils import canonicalize_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """``vulnerable`` has a line for each; ``not_audited`` the names of packages."""

    vulnerable: tuple[str, ...]
    not_audited: tuple[str, ...]


def read(output: str, names: Collection[str]) -> Findings:
    """What pip-audit's JSON says of ``names``. Output that is no such JSON audits none of them."""
    try:
        dependencies = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Findings(vulnerable=(), not_audited=tuple(sorted(names)))
    audited: set[str] = set()
    vulnerable: list[str] = []
    for each in dependencies:
        if "skip_reason" in each:
            continue
        audited.add(canonicalize_name(each["name"]))
        vulnerable += [_line(each["name"], each["version"], found) for found in each["vulns"]]
    return Findings(vulnerable=tuple(vulnerable), not_audited=tuple(sorted(set(names) - audited)))


def _line(name: str, version: str, found: dict[str, object]) -> str:
    fixed = found.get("fix_versions")
    remedy = f"fixed in {', '.join(map(str, fixed))}" if isinstance(fixed, list) and fixed else "no fix yet"
    return f"{name} {version}: {found['id']}, {remedy}"
