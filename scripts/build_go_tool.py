"""Builds a program from the Go module that pins it, as ``tools/h2spec/go.mod`` does. Standard library only."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from scripts.build_consul import find_go
from scripts.steps import run


def build_go_tool(module: Path, package: str, target: Path, *, cgo: bool = False) -> None:
    """Build the command ``package`` of the folder ``module`` as ``target``; with ``cgo``, by a C compiler as well.

    :raises Failed: when it cannot be built.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        built = Path(folder) / target.name
        environment = {"CGO_ENABLED": "1" if cgo else "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
        run([find_go(), "build", "-trimpath", "-o", str(built), package], environment, cwd=module)
        os.replace(built, target)
