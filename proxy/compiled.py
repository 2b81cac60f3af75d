"""The modules of a worker as machine code, where this machine has them: found, checked, and imported instead of their
sources.

``scripts/compiled.py`` (``make compiled``) compiles them with mypyc into a folder of a cache, one for each state
of the sources and each interpreter. Here the same digest is made of the sources that are at hand: a folder that was
made of others is never looked at, so nothing runs that is not what can be read. A folder that somebody else could have
written is not used either.

Imports the standard library alone, and is always interpreted.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import stat
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

CODE = "CONSUL_TGW_CODE"
"""``interpreted``, ``auto`` (compiled where it is there) or ``compiled`` (or the worker does not start)."""
CACHE = "CONSUL_TGW_CACHE"
GROUP = "consul_tgw_proxy"
MANIFEST = "manifest.json"
_SOURCES = Path(__file__).parent

INTERPRETED = frozenset(
    {
        # What runs before the compiled ones can be found.
        *("proxy", "proxy.__main__", "proxy.compiled", "proxy.confinement", "proxy.logs"),
        # Structs of msgspec, which reads the annotations of a class as Python keeps them.
        *("proxy.messages", "proxy.model", "proxy.rules", "proxy.frames"),
        *("proxy.records.access_record", "proxy.records.audit_log", "proxy.policy.identity"),
        # Subclasses of the library's state machine, whose types it does not tell.
        "proxy.http.h2.engine",
        # Seldom at work: wiring, and what the control process says.
        *("proxy.worker", "proxy.control", "proxy.sockets.listener"),
    }
)


class CodeError(Exception):
    """Compiled code was asked for, and there is none that may be used."""


@dataclass(frozen=True, slots=True)
class Code:
    """What the worker's modules run as."""

    folder: Path | None
    """Of the compiled ones; ``None``: they are interpreted."""
    compiler: str = ""
    why: str = ""
    """They are interpreted; for people."""

    def __str__(self) -> str:
        return f"compiled ({self.compiler})" if self.folder is not None else f"interpreted ({self.why})"


def modules(sources: Path = _SOURCES) -> dict[str, Path]:
    """Those that are compiled, with their sources."""
    found = {}
    for path in sorted(sources.rglob("*.py")):
        name = ".".join(("proxy", *path.relative_to(sources).with_suffix("").parts))
        if path.name != "__init__.py" and name not in INTERPRETED:
            found[name] = path
    return found


def digest(sources: Path = _SOURCES) -> str:
    """Of all sources of the package, and of the interpreter whose machine code it would be."""
    parts = hashlib.sha256()
    for text in (sys.version, sys.implementation.cache_tag or "", sysconfig.get_config_var("EXT_SUFFIX") or ""):
        parts.update(text.encode() + b"\0")
    for path in sorted(sources.rglob("*.py")):
        content = path.read_bytes()
        parts.update(b"%s\0%d\0" % (str(path.relative_to(sources)).encode(), len(content)))
        parts.update(content)
    return parts.hexdigest()[:32]


def cache(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of all that was compiled; ``None`` where there is no place for it."""
    if chosen := environment.get(CACHE):
        return Path(chosen) / "compiled"
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base) / "consul-tgw" / "compiled"
    home = environment.get("HOME")
    return Path(home) / ".cache" / "consul-tgw" / "compiled" if home else None


def handed_on(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a worker has to be told to find the same."""
    told = {}
    if (folder := cache(environment)) is not None:
        told[CACHE] = str(folder.parent)
    if code := environment.get(CODE):
        told[CODE] = code
    return told


def find(environment: Mapping[str, str] = os.environ) -> Code:
    """What is to run. :raises CodeError: when that is ``compiled`` and cannot be had."""
    wanted = environment.get(CODE) or "interpreted"
    if wanted not in ("auto", "compiled", "interpreted"):
        raise CodeError(f"{CODE}={wanted} is none of interpreted, auto and compiled")
    if wanted == "interpreted":
        return Code(None, why="as long as nothing else is asked for")
    code = _found(environment)
    if code.folder is None and wanted == "compiled":
        raise CodeError(f"{CODE}=compiled, but {code.why}")
    return code


def _found(environment: Mapping[str, str]) -> Code:
    folder = cache(environment)
    if folder is None or not folder.is_dir():
        return Code(None, why="nothing was compiled on this machine")
    try:
        folder = folder / digest()
        if not folder.is_dir():
            return Code(None, why="what was compiled is of other sources, or of another interpreter: make compiled")
        manifest = json.loads((folder / MANIFEST).read_bytes())
        absent = [name for name in [*modules(), shared()] if not file_of(folder, name).is_file()]
        if absent:
            return Code(None, why=f"{folder} lacks {absent[0]}")
        if unsafe := _unsafe(folder):
            return Code(None, why=f"{unsafe} could have been written by another user")
        return Code(folder, compiler=str(manifest["compiler"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Code(None, why=f"{folder} cannot be used: {error}")


def _unsafe(folder: Path) -> str:
    """What of it, or above it, is not root's or ours alone to change; empty when all is."""
    folder = folder.resolve()
    for path in (*_above(folder), folder, *folder.iterdir()):
        status = path.stat()
        # In a folder like /tmp nobody can replace what is another's.
        shared_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or (status.st_mode & 0o022 and not shared_folder):
            return str(path)
    return ""


def _above(folder: Path) -> tuple[Path, ...]:
    return tuple(folder.parents)


def shared() -> str:
    """The module that holds the machine code of all; each of the others only names its part."""
    return f"{GROUP}__mypyc"


def file_of(folder: Path, name: str) -> Path:
    return folder / (name + str(sysconfig.get_config_var("EXT_SUFFIX")))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, folder: Path) -> None:
        self._files = {name: str(file_of(folder, name)) for name in (*modules(), shared())}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = self._files.get(fullname)
        if file is None:
            return None
        loader = importlib.machinery.ExtensionFileLoader(fullname, file)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


@functools.cache
def use() -> Code:
    """From now on modules are imported as :func:`find` says. To be called before the first of them is imported.

    :raises CodeError: as :func:`find`.
    """
    code = find()
    if code.folder is not None:
        early = [name for name in modules() if name in sys.modules]
        if early:
            raise AssertionError(f"imported before it was known what is compiled: {early}")
        sys.meta_path.insert(0, _Finder(code.folder))
    return code
