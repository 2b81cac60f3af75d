"""Builds h2spec, a test of HTTP/2 implementations, from the Go module that ``tools/h2spec/go.mod`` pins.

Standard library only.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from scripts.build_consul import find_go
from scripts.steps import run

PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"


def build_h2spec(module: Path, target: Path) -> None:
    """:raises Failed: when it cannot be built."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        built = Path(folder) / "h2spec"
        environment = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
        run([find_go(), "build", "-trimpath", "-o", str(built), PACKAGE], environment, cwd=module)
        os.replace(built, target)
