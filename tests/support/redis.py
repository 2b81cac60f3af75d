"""A real Redis on loopback, with TLS alone.

Debian's ``redis-tools`` has the server's program as well, which takes its part from the name that it is called by. So
no service is installed that would start by itself.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from plugin.dev.pki import Authority, KeyPair
from plugin.dev.processes import Child, Launcher, can_connect, free_ports
from plugin.errors import StartError


class Redis(Launcher):
    def __init__(self, folder: Path, authority: Authority, tls: KeyPair) -> None:
        self.port = free_ports(1)[0]
        self._folder = folder
        self._authority = authority
        self._tls = tls
        self.child: Child | None = None

    async def start(self) -> None:
        """:raises StartError: with the log's tail."""
        self._folder.mkdir()
        certificate, key = self._tls.write(self._folder, "redis")
        settings = {
            "bind": "127.0.0.1",
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(certificate),
            "tls-key-file": str(key),
            "tls-ca-cert-file": str(self._authority.write(self._folder, "ca")),
            "tls-auth-clients": "no",
            "save": "",
            "dir": str(self._folder),
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self.child = Child("Redis", [str(self._program()), *options], self._folder / "redis.log", folder=self._folder)
        await self.child.started(lambda: can_connect("127.0.0.1", self.port))

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.terminate()
            self.child = None

    def _program(self) -> Path:
        found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        if found is None:
            raise StartError("no Redis found: run `make setup`, or install `redis-tools`")
        called = self._folder / "redis-server"
        called.symlink_to(Path(found).resolve())
        return called
