"""``make audit``: four checks of what the gateway is installed from.

Exit code: 0 all is right; 1 something is wrong, and named; 3 nothing is known to be wrong, but packages could not be
looked up for known vulnerabilities. ``--offline`` does not ask for those, says so, and does not count it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from json import loads
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from scripts.audit import licences, locks, sbom, vulnerabilities
from scripts.steps import Failed, say

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = ROOT / "requirements"
SBOM = Path("build/audit/sbom.cdx.json")
TOOLS = ROOT / ".venvs" / "audit" / "bin"

RIGHT, WRONG, NOT_AUDITED = 0, 1, 3


def asked_by_lock(project: dict[str, Any], go: str) -> dict[str, list[str]]:
    """What each lock has to fulfil: the input of scripts/lock."""
    runtime, groups = project["project"]["dependencies"], project["dependency-groups"]
    return {
        "run": runtime,
        "dev": runtime + groups["dev"],
        **{name: groups[name] for name in groups if name != "dev"},
        "go": go.split(),
    }


def check_locks(project: dict[str, Any], pins: dict[str, Sequence[locks.Pin]]) -> list[str]:
    faults = []
    for name, asked in asked_by_lock(project, (LOCKS / "go.in").read_text()).items():
        pins[name], unread = locks.read_lock((LOCKS / f"{name}.lock").read_text())
        stale = locks.unmet(asked, pins[name])
        faults += [f"requirements/{name}.lock {fault}" for fault in (*unread, *stale)]
    faults += [f"requirements/dev.lock {fault}" for fault in locks.disagreements(pins["run"], pins["dev"])]
    say(f"locks: {len(pins)} of them, {sum(map(len, pins.values()))} pins, {len(faults)} faults")
    return faults


def check_licences(pins: Sequence[locks.Pin], known: dict[str, str]) -> list[str]:
    faults = []
    for pin in (pin for pin in pins if pin.applies_here()):
        try:
            version, expression = licences.of_installed(pin.name)
        except PackageNotFoundError:
            faults.append(f"{pin.name} is not installed: run `make setup`")
            continue
        say(f"licence: {pin.name} {version}: {expression or 'not understood'}")
        fault = licences.fault(pin.name, expression)
        if fault is not None:
            faults.append(fault)
        if version != pin.version:
            faults.append(f"{pin.name} {version} is installed, and {pin.version} locked: run `make setup`")
        if expression is not None:
            known[pin.name] = expression
    return faults


def write_sbom(target: Path, version: str, known: dict[str, str]) -> None:
    command = [str(TOOLS / "cyclonedx-py"), "requirements", str(LOCKS / "run.lock")]
    done = subprocess.run(
        [*command, "--output-reproducible", "--of", "JSON"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(f"cyclonedx-py ended with {done.returncode}: {done.stderr.strip()}")
    document = sbom.cleaned(loads(done.stdout), known, version)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(sbom.written(document))
    say(f"bill of materials: {len(document['components'])} packages in {target}")


def look_up(names: Sequence[str]) -> vulnerabilities.Findings:
    command = [str(TOOLS / "pip-audit"), "--requirement", str(LOCKS / "run.lock"), "--disable-pip", "--require-hashes"]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    findings = vulnerabilities.read(done.stdout, names)
    if done.returncode != 0 and not findings.vulnerable:
        say(f"pip-audit ended with {done.returncode}: {done.stderr.strip().rpartition(chr(10))[2]}")
        return vulnerabilities.Findings(vulnerable=(), not_audited=tuple(names))
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make audit", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--offline", action="store_true", help="do not look for known vulnerabilities, and say so")
    parser.add_argument("--sbom", type=Path, default=SBOM, metavar="FILE", help="where the bill of materials goes")
    chosen = parser.parse_args(arguments)
    offline = chosen.offline
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pins: dict[str, Sequence[locks.Pin]] = {}
    known: dict[str, str] = {}
    faults = check_locks(project, pins)
    faults += check_licences(pins["run"], known)
    names = sorted({canonicalize_name(pin.name) for pin in pins["run"]})
    try:
        write_sbom(chosen.sbom, project["project"]["version"], known)
    except Failed as failure:
        faults.append(str(failure))
    findings = vulnerabilities.Findings(vulnerable=(), not_audited=tuple(names)) if offline else look_up(names)
    faults += findings.vulnerable
    for fault in faults:
        say(f"WRONG: {fault}")
    if findings.not_audited:
        say(f"not audited: {len(findings.not_audited)} packages" + (" (--offline)" if offline else ""))
    else:
        say(f"audited: {len(names)} packages, {len(findings.vulnerable)} known vulnerabilities")
    if faults:
        return WRONG
    return NOT_AUDITED if findings.not_audited and not offline else RIGHT


if __name__ == "__main__":
    sys.exit(main())
