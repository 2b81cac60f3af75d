"""How this program is started again: the interpreter, and the source tree where it is not installed."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import plugin

REHEARSAL = "CONSUL_TGW_REHEARSAL"
"""``<descriptor of the connection>,<descriptor of the real standard error>``: rehearse instead of running."""
INHERITED = "CONSUL_TGW_INHERITED"
"""Descriptor of an :class:`plugin.reload.messages.Inheritance`: go on where the former program of this process was."""
_OF_THE_MANAGER = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def source_tree() -> str:
    tree = str(Path(plugin.__file__).parent.parent)
    return "" if tree in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")} else tree


def command(executable: str, arguments: tuple[str, ...]) -> list[str]:
    """``-P`` keeps the working directory off the import path."""
    return [executable, "-P", "-m", "plugin", *arguments]


def environment(source: str, added: Mapping[str, str], *, managed: bool) -> dict[str, str]:
    """Ours, with ``source`` to import from. Only what is ``managed`` may speak to the service manager."""
    kept = {name: value for name, value in os.environ.items() if managed or name not in _OF_THE_MANAGER}
    if source:
        others = [path for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path not in ("", source)]
        kept["PYTHONPATH"] = os.pathsep.join((source, *others))
    return {**kept, **added}
