"""Finds the real programs that the launchers start.

A program on ``PATH`` is used first when its version fits, then what ``make setup`` made. This module starts nothing
but ``PROGRAM --version`` and imports the standard library alone: the set-up runs it before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from plugin.errors import StartError

CONSUL_VERSION = "1.21.0"
"""What ``tools/consul/go.mod`` builds."""
CONSUL_LINE = (1, 21)
"""Any release of this line serves."""
OLD_CONSUL_VERSION = "1.8.7"
"""The oldest that the gateway is tested with; 1.8 was the first with terminating gateways."""
ENVOY_MINIMUM = (1, 36)
H2SPEC_VERSION = "2.2.1"
"""What ``tools/h2spec/go.mod`` builds."""

_VERSION_TIMEOUT_S = 30.0
_SERVERS = "/usr/sbin:/usr/local/sbin"
"""Where Debian keeps servers; not on everybody's PATH."""
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def cache_dir() -> Path:
    """Where set-up keeps what it builds, outside any checkout so that all of them share it."""
    chosen = os.environ.get("CONSUL_TGW_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "consul-tgw"


def built_consul() -> Path:
    """Where set-up puts the Consul that it builds; it need not exist."""
    return cache_dir() / f"consul-{CONSUL_VERSION}" / "consul"


def program_version(program: Path | str) -> tuple[int, int, int] | None:
    """The first ``x.y.z`` that ``program --version`` prints; ``None`` when it cannot be run or prints none."""
    try:
        answer = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(answer.stdout.decode(errors="replace"))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def consul_on_path() -> Path | None:
    """The ``consul`` on ``PATH``, when it is of the line that this project is built for."""
    found = shutil.which("consul")
    if found is None:
        return None
    version = program_version(found)
    return Path(found) if version is not None and version[:2] == CONSUL_LINE else None


def consul() -> Path:
    """:raises StartError: when there is none."""
    found = consul_on_path()
    if found is not None:
        return found
    built = built_consul()
    if os.access(built, os.X_OK):
        return built
    line = ".".join(map(str, CONSUL_LINE))
    raise StartError(f"no Consul {line}.x on PATH and none at {built}: run `make setup`, which builds it")


def unpacked_old_consul() -> Path:
    """Where set-up puts the old Consul; it need not exist."""
    return cache_dir() / f"consul-{OLD_CONSUL_VERSION}" / "consul"


def old_consul() -> Path:
    """:raises StartError: when there is none."""
    unpacked = unpacked_old_consul()
    if os.access(unpacked, os.X_OK):
        return unpacked
    raise StartError(
        f"no Consul {OLD_CONSUL_VERSION} at {unpacked}: run `make setup`, which fetches it or says why it cannot"
    )


def envoy() -> Path:
    """:raises StartError: when there is none."""
    for candidate in _envoys():
        version = program_version(candidate)
        if version is not None and version[:2] >= ENVOY_MINIMUM:
            return candidate
    minimum = ".".join(map(str, ENVOY_MINIMUM))
    raise StartError(
        f"no Envoy {minimum} or later on PATH or beside {sys.executable}: run `make setup`, which installs it"
    )


def _envoys() -> Iterator[Path]:
    on_path = shutil.which("envoy")
    if on_path is not None:
        yield Path(on_path)
    beside = Path(sys.prefix) / "bin" / "envoy"
    if beside.exists():
        yield beside


def postgres_bin() -> Path:
    """The folder that holds ``initdb``, ``postgres`` and ``psql`` of one PostgreSQL.

    :raises StartError: when there is none.
    """
    for folder in _postgres_folders():
        if all(os.access(folder / name, os.X_OK) for name in ("initdb", "postgres", "psql")):
            return folder
    raise StartError("no PostgreSQL server (initdb, postgres, psql) found: run `make setup`, or install `postgresql`")


def _postgres_folders() -> Iterator[Path]:
    # Debian keeps server programs out of PATH, one folder for each major version; links to them may be on PATH.
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    yield from sorted(debian, key=lambda path: int(path.parent.name), reverse=True)
    for name in ("initdb", "postgres"):
        found = shutil.which(name)
        if found is not None:
            yield Path(found).resolve().parent


def built_h2spec() -> Path:
    """Where set-up puts h2spec; it need not exist."""
    return cache_dir() / f"h2spec-{H2SPEC_VERSION}" / "h2spec"


def h2spec() -> Path:
    """:raises StartError: when there is none."""
    built = built_h2spec()
    if os.access(built, os.X_OK):
        return built
    raise StartError(f"no h2spec at {built}: run `make setup`, which builds it or says why it cannot")


def nginx() -> Path:
    """:raises StartError: when there is none."""
    return _system_program("nginx-light", "nginx")


def chromium() -> Path:
    """:raises StartError: when there is none."""
    return _system_program("chromium", "chromium", "chromium-browser", "google-chrome")


def _system_program(package: str, *names: str) -> Path:
    for name in names:
        found = shutil.which(name) or shutil.which(name, path=_SERVERS)
        if found is not None:
            return Path(found)
    raise StartError(f"no {names[0]} found: run `make setup`, or install `{package}`")
