"""The folder of installed packages that goes into the zipapp, with nothing in it of the machine that made it.

pip writes the path of a local wheel into ``direct_url.json`` and the path of the interpreter into commands; both are
taken out, and out of the lists of installed files as well.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.steps import run

_OF_THE_MACHINE = ("direct_url.json", "REQUESTED")


def install(python: Path, lock: Path, wheel: Path, site: Path) -> None:
    """Fill ``site`` from ``lock``, hashes checked, and with our own ``wheel``. :raises Failed: when pip does."""
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
    target = ["--target", str(site)]
    run([*pip, *target, "--require-hashes", "--requirement", str(lock)])
    # --upgrade lets the second call share the folder; --no-index says that nothing else may come with it.
    run([*pip, *target, "--upgrade", "--no-index", "--no-deps", str(wheel)])
    strip(site)


def strip(site: Path) -> None:
    shutil.rmtree(site / "bin", ignore_errors=True)
    for metadata in sorted(site.glob("*.dist-info")):
        for name in _OF_THE_MACHINE:
            (metadata / name).unlink(missing_ok=True)
        record = metadata / "RECORD"
        if record.exists():
            record.write_text("".join(sorted(filter(_kept, record.read_text().splitlines(keepends=True)))))


def _kept(line: str) -> bool:
    path = line.rpartition(",")[0].rpartition(",")[0].strip('"')
    return not path.startswith("../") and path.rpartition("/")[2] not in _OF_THE_MACHINE
