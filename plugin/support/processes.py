"""What the kernel says of the processes of a gateway (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

_WANTED = ("VmRSS", "VmHWM", "VmSize", "Threads", "FDSize", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
_LIMITS = ("Max open files", "Max processes", "Max locked memory", "Max core file size", "Max address space")


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    pid: int
    descriptors: int | None = None
    """Open ones; ``None`` when they cannot be counted."""
    status: dict[str, str] = {}
    limits: dict[str, str] = {}
    cpu_s: float = 0.0
    """User and system together."""
    problem: str = ""


def process_facts(name: str, pid: int) -> ProcessFacts:
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(_split(line, ":") for line in (folder / "status").read_text().splitlines())
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        limits = _limits((folder / "limits").read_text())
    except OSError as error:
        return ProcessFacts(name=name, pid=pid, problem=f"process {pid}: {error.strerror}")
    problem, descriptors = "", None
    try:
        descriptors = len(os.listdir(folder / "fd"))
    except OSError as error:
        problem = f"descriptors of process {pid}: {error.strerror}; ask as its user or as root"
    return ProcessFacts(
        name=name,
        pid=pid,
        descriptors=descriptors,
        status={key: value for key, value in status.items() if key in _WANTED},
        limits=limits,
        cpu_s=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        problem=problem,
    )


def _split(line: str, separator: str) -> tuple[str, str]:
    key, _, value = line.partition(separator)
    return key.strip(), value.strip()


def _limits(text: str) -> dict[str, str]:
    """Soft and hard, in columns of a fixed width."""
    return {
        name: " ".join(line[len(name) :].split()[:2])
        for line in text.splitlines()
        if (name := next((each for each in _LIMITS if line.startswith(each)), ""))
    }
