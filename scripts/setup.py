"""Prepares everything that running and testing needs, in steps that say what they do and how long it took.

Each step first looks whether it has anything to do, so a second run takes seconds. It runs under a bare Python:
the standard library and ``plugin.dev.locate`` only. Packages come through pip, apt and go as this machine has them
configured; no registry is named here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from plugin.dev import locate  # noqa: E402
from plugin.errors import StartError  # noqa: E402
from scripts.build_consul import build_consul  # noqa: E402
from scripts.build_go_tool import build_go_tool  # noqa: E402
from scripts.fetch_old_consul import fetch_old_consul  # noqa: E402
from scripts.steps import Failed, run, say  # noqa: E402

VENV = Path(os.environ.get("CONSUL_TGW_VENV") or ROOT / ".venv")
LOCK = ROOT / "requirements" / "dev.lock"
H2SPEC_PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"

DEBIAN_PACKAGES: dict[str, Callable[[], object]] = {
    "git": lambda: shutil.which("git"),
    "ca-certificates": lambda: Path("/etc/ssl/certs/ca-certificates.crt").exists(),
    # Its command is in no path that matters: tests preload the library.
    "faketime": lambda: any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")),
    "postgresql": lambda: _found(locate.postgres_bin),
    "systemd": lambda: shutil.which("systemd-analyze"),
    "curl": lambda: shutil.which("curl"),
    # The lab's: networks, and what supervises services where systemd does not run.
    "iproute2": lambda: shutil.which("ip"),
    "runit": lambda: shutil.which("runsv"),
    "jq": lambda: shutil.which("jq"),
    "groff-base": lambda: shutil.which("groff"),
    "nginx-light": lambda: _found(locate.nginx),
    # Has the server's program as well.
    "redis-tools": lambda: shutil.which("redis-cli"),
    # For `make compiled`.
    "gcc": lambda: shutil.which("gcc"),
    "libc6-dev": lambda: Path("/usr/include/stdio.h").exists(),
    "python3-dev": lambda: Path(sysconfig.get_path("include"), "Python.h").exists(),
    "shellcheck": lambda: shutil.which("shellcheck"),
    # Reads the Vagrantfile of the lab; machines take a provider as well.
    "vagrant": lambda: shutil.which("vagrant"),
    # Whose completion is tried.
    "zsh": lambda: shutil.which("zsh"),
    "fish": lambda: shutil.which("fish"),
    "man-db": lambda: shutil.which("man"),
    "less": lambda: shutil.which("less"),
}
"""A package, and whether what it brings is here already."""
POLICY = Path("/usr/sbin/policy-rc.d")
_OURS = "# No service is started while consul-tgw is set up; left by an interrupted set-up, it can be removed."


def _found(find: Callable[[], Path]) -> bool:
    try:
        find()
    except StartError:
        return False
    return True


def debian_packages() -> str:
    missing = [name for name, present in DEBIAN_PACKAGES.items() if not present()]
    if not missing:
        return "nothing missing"
    install_packages(missing)
    return f"installed {', '.join(missing)}"


def browser() -> str:
    if _found(locate.chromium):
        return f"{locate.chromium()}, installed before"
    try:
        install_packages(["chromium"])
    except Failed as failure:
        # Ubuntu has it as a snap only; one test needs it, and fails without it.
        return f"NOT HAD, so tests/http/test_browser.py will fail\n{failure}\n"
    return "installed chromium"


def install_packages(packages: list[str]) -> None:
    """By Debian's package manager. :raises Failed: when there is none, or not the right to use it."""
    if shutil.which("apt-get") is None:
        raise Failed(f"no apt-get here: install these by your system's means: {', '.join(packages)}")
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and shutil.which("sudo") is None:
        raise Failed(f"not root and no sudo: have these Debian packages installed: {', '.join(packages)}")
    # sudo would keep no variable.
    apt_get = [*as_root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    run([*apt_get, "update", "-qq"])
    with no_service_started(as_root):
        run([*apt_get, "install", "-y", "-qq", "--no-install-recommends", *packages])


@contextmanager
def no_service_started(as_root: list[str], policy: Path = POLICY) -> Iterator[None]:
    """Tests start what they need: nginx and PostgreSQL must not begin to serve on this machine because of them.

    Packages ask the program ``policy`` before they start a service (Debian's invoke-rc.d and deb-systemd-invoke). One
    that is there already is left: it is somebody's own.
    """
    if policy.exists() and _OURS not in policy.read_text(errors="replace"):
        yield
        return
    text = f"#!/bin/sh\n{_OURS}\nexit 101\n"
    run([*as_root, "sh", "-c", f"printf '%s' '{text}' > {policy} && chmod 755 {policy}"])
    try:
        yield
    finally:
        run([*as_root, "rm", "-f", str(policy)])


def python_environment() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    # Not sys.executable: run from inside an environment, this must not take the environment for another one.
    wanted = f"{sys.base_prefix} {version}"
    stamp = VENV / ".made-by"
    if _stamped(stamp, wanted) and (VENV / "bin" / "pip").exists():
        return f"up to date (Python {version})"
    run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    stamp.write_text(wanted)
    return f"made with Python {version}"


def python_packages() -> str:
    stamp = VENV / ".lock-installed"
    digest = _digest(LOCK)
    if _stamped(stamp, digest):
        return "up to date"
    run([*_pip(), "install", "--quiet", "--require-hashes", "--requirement", str(LOCK)])
    stamp.write_text(digest)
    return f"installed from {LOCK.relative_to(ROOT)}, hashes checked"


def project() -> str:
    stamp = VENV / ".project-installed"
    digest = _digest(ROOT / "pyproject.toml", ROOT / "README.md") + str(ROOT)
    command = VENV / "bin" / "consul-tgw"
    if _stamped(stamp, digest) and command.exists():
        return "up to date"
    run([*_pip(), "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    stamp.write_text(digest)
    return f"installed: {command.relative_to(ROOT) if command.is_relative_to(ROOT) else command}"


def consul() -> str:
    found = locate.consul_on_path()
    if found is not None:
        return f"the one on PATH: {found}"
    target = locate.built_consul()
    if os.access(target, os.X_OK):
        return f"{locate.CONSUL_VERSION}, built before"
    build_consul(ROOT / "tools" / "consul", target)
    return f"{locate.CONSUL_VERSION}, built"


def old_consul() -> str:
    target = locate.unpacked_old_consul()
    if os.access(target, os.X_OK):
        return f"{locate.OLD_CONSUL_VERSION}, fetched before"
    try:
        fetch_old_consul(target)
    except Failed as failure:
        # Only the tests with it need it, and they fail without it; a gateway can be run and worked on all the same.
        return f"NOT HAD, so tests/old_consul will fail\n{failure}\n"
    return f"{locate.OLD_CONSUL_VERSION}, fetched"


def h2spec() -> str:
    target = locate.built_h2spec()
    if os.access(target, os.X_OK):
        return f"{locate.H2SPEC_VERSION}, built before"
    try:
        build_go_tool(ROOT / "tools" / "h2spec", H2SPEC_PACKAGE, target)
    except Failed as failure:
        return f"NOT HAD, so tests/http/test_h2spec.py will fail\n{failure}\n"
    return f"{locate.H2SPEC_VERSION}, built"


def real_parts() -> str:
    # The environment's own Envoy is found from inside it, so ask there, as the tests will.
    script = "from plugin.dev import locate; locate.consul(); locate.envoy(); locate.postgres_bin(); locate.nginx()"
    run([str(VENV / "bin" / "python"), "-c", script], cwd=ROOT)
    return "consul, envoy, nginx and postgres run here"


def _pip() -> list[str]:
    return [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes() if file.exists() else b"")
    return digest.hexdigest()


def _stamped(stamp: Path, content: str) -> bool:
    return stamp.exists() and stamp.read_text() == content


STEPS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("Debian packages", debian_packages),
    ("Python environment", python_environment),
    ("Python packages", python_packages),
    ("consul-tgw itself", project),
    ("Consul", consul),
    ("Old Consul", old_consul),
    ("h2spec", h2spec),
    ("Browser", browser),
    ("Real parts", real_parts),
)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two set-ups of one checkout wait for each other."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("setup: waiting for another set-up of this checkout")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main() -> int:
    began = time.monotonic()
    with _alone(ROOT / ".setup-lock"):
        for number, (name, step) in enumerate(STEPS, 1):
            since = time.monotonic()
            try:
                outcome = step()
            except KeyboardInterrupt:
                say(f"[{number}/{len(STEPS)}] {name}: interrupted; run it again to go on from here")
                return 130
            except (Failed, OSError) as error:
                say(f"[{number}/{len(STEPS)}] {name}: FAILED\n{error}")
                return 1
            say(f"[{number}/{len(STEPS)}] {name}: {outcome} ({time.monotonic() - since:.1f} s)")
    say(f"setup: ready in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
