"""A throwaway PostgreSQL cluster on loopback TCP: the external service that keeps connections for days.

PostgreSQL refuses to run as root, so root starts it as the ``postgres`` user that Debian's package makes.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path

from plugin.dev import locate
from plugin.dev.pki import KeyPair
from plugin.dev.processes import Child, Launcher, free_ports, run
from plugin.errors import StartError

_SYSTEM_USER = "postgres"


class Postgres(Launcher):
    """One cluster with the superuser ``tester``, gone with everything in it after :meth:`stop`."""

    def __init__(
        self, *, password: str = "", tls: KeyPair | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        """With a ``password``, SCRAM asks for it; without, everyone is let in. With ``tls`` it also speaks TLS.
        ``settings`` are those of ``postgresql.conf``."""
        self.user = "tester"
        self.password = password
        self.port = free_ports(1)[0]
        self._tls = tls
        self._settings = dict(settings or {})
        self._system_user = _SYSTEM_USER if os.geteuid() == 0 else None
        self._folder: Path | None = None
        self.child: Child | None = None

    async def start(self) -> None:
        """Make the cluster, start it and wait until it answers. :raises StartError: with what PostgreSQL said."""
        programs = locate.postgres_bin()
        folder = self._make_folder()
        await self._initialise(programs, folder)
        environment = _plain_environment()
        self.child = Child(
            "PostgreSQL",
            [str(programs / "postgres"), "-D", str(folder / "data"), *self._options(folder)],
            folder / "postgres.log",
            environment=environment,
            folder=folder,
            user=self._system_user,
        )
        await self.child.started(self._answers)

    async def stop(self) -> None:
        """End it, with its sessions, and remove it."""
        if self.child is not None:
            # PostgreSQL's "fast" shutdown: SIGTERM would wait for clients to leave by themselves.
            await self.child.terminate(with_signal=signal.SIGINT)
            self.child = None
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    async def psql(
        self,
        sql: str,
        *,
        port: int | None = None,
        database: str = "postgres",
        tls_mode: str = "disable",
        deadline_s: float = 60.0,
    ) -> str:
        """What ``psql`` prints for ``sql``, bare values only. ``port``: of the way to go, such as a sidecar's.

        :raises StartError: with psql's words, when it fails.
        """
        environment = _plain_environment() | {
            "PGPASSWORD": self.password,
            "PGSSLMODE": tls_mode,
            "PGCONNECT_TIMEOUT": "15",
        }
        command = [str(locate.postgres_bin() / "psql"), "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]
        where = ["--host=127.0.0.1", f"--port={port or self.port}", f"--username={self.user}", f"--dbname={database}"]
        stop = ["--set=ON_ERROR_STOP=1"]
        printed = await run([*command, *stop, *where, "--command", sql], environment=environment, deadline_s=deadline_s)
        return printed.strip()

    def _make_folder(self) -> Path:
        # Not in a caller's folder: pytest's are closed to other users, and this one belongs to another.
        self._folder = Path(tempfile.mkdtemp(prefix="consul-tgw-postgres-"))
        self._give(self._folder)
        return self._folder

    def _give(self, path: Path) -> None:
        if self._system_user is not None:
            try:
                account = pwd.getpwnam(self._system_user)
            except KeyError as error:
                raise StartError(f"no user {self._system_user}: run `make setup`, or install `postgresql`") from error
            os.chown(path, account.pw_uid, account.pw_gid)

    async def _initialise(self, programs: Path, folder: Path) -> None:
        command = [
            str(programs / "initdb"),
            f"--pgdata={folder / 'data'}",
            f"--username={self.user}",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]
        if self.password:
            secret = folder / "password"
            secret.touch(mode=0o600)
            secret.write_text(self.password)
            self._give(secret)
            command += ["--auth=scram-sha-256", f"--pwfile={secret}"]
        else:
            command += ["--auth=trust"]
        await run(command, environment=_plain_environment(), folder=folder, user=self._system_user)

    def _options(self, folder: Path) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            **self._settings,
        }
        if self._tls is not None:
            certificate, key = self._tls.write(folder, "server")
            for path in (certificate, key):
                self._give(path)
            settings |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _answers(self) -> bool:
        try:
            return await self.psql("select 1", deadline_s=20.0) == "1"
        except StartError:
            return False


def _plain_environment() -> dict[str, str]:
    """Ours without anything that points PostgreSQL's programs elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
