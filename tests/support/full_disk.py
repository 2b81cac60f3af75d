"""A disk that is full, or not, as a test says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 64 * 1024


class SmallDisk:
    """A tiny file system with one file on it, ``descriptor``."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log"
        self._ballast = folder / "ballast"
        self.descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(bytes(256)):
                pass

    def clear(self) -> None:
        self._ballast.write_bytes(b"")

    def lines(self) -> list[bytes]:
        """Those that are complete."""
        return self._path.read_bytes().split(b"\n")[:-1]


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mounted in a namespace of its own: nothing is left when the process that holds it has ended."""
    mount = f"mount -t tmpfs -o size={_SIZE} tmpfs '{folder}' && echo mounted && exec sleep 600"
    rights = ["--map-root-user", "--user"] if os.geteuid() else []
    holder = subprocess.Popen(["unshare", *rights, "--mount", "sh", "-c", mount], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mounted\n"
        disk = SmallDisk(Path(f"/proc/{holder.pid}/root{folder}"))
        try:
            yield disk
        finally:
            os.close(disk.descriptor)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
