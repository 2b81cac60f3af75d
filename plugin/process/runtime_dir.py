"""The runtime directory: the lock of the control process, the hand-over sockets of its workers, the admin address.

There is one directory for each gateway (service ID, address and network namespace), private to one user. It holds
no state that matters after the last process has gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from plugin.errors import ConfigError, StartError

LONGEST_SOCKET_PATH = 107
"""Bytes: ``sun_path`` of unix(7) is 108 with its final zero."""
_SOCKET = re.compile(r"worker-(\d+)\.sock")
_LONGEST_SOCKET_NAME = "worker-4194304.sock"


def base_directory(chosen: Path | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the directories of this user's gateways are: ``--runtime-dir``, else what the system provides."""
    if chosen is not None:
        return chosen.absolute()
    # systemd lists several directories with colons; the first one is ours.
    if service_manager := environment.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return Path(service_manager)
    if session := environment.get("XDG_RUNTIME_DIR"):
        return Path(session) / "consul-tgw"
    if os.geteuid() == 0:
        return Path("/run/consul-tgw")
    return Path(tempfile.gettempdir()) / f"consul-tgw-{os.geteuid()}"


def gateway_directory(base: Path, service_id: str, address: str) -> Path:
    """The directory of one gateway: readable by its ID, unique by a digest, short enough for a socket path."""
    namespace = os.stat("/proc/self/ns/net").st_ino
    key = hashlib.sha256(f"{service_id}\0{address}\0{namespace}".encode()).hexdigest()[:8]
    room = LONGEST_SOCKET_PATH - len(os.fsencode(base / key / _LONGEST_SOCKET_NAME))
    if room < 0:
        raise ConfigError(
            f"the runtime directory {base} is too long for Unix sockets in it; choose a shorter one with --runtime-dir"
        )
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", service_id)[: min(24, room - 1)] if room > 1 else ""
    return base / (f"{readable}-{key}" if readable else key)


def gateway_directories(base: Path) -> list[Path]:
    """Directories of gateways that have written their admin address, newest first."""
    found = [marker for marker in base.glob("*/admin") if marker.is_file()]
    return [marker.parent for marker in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def read_admin_address(directory: Path) -> str:
    """``IP:PORT`` or ``unix:///PATH`` of the gateway whose directory this is. :raises OSError: when there is none."""
    return (directory / "admin").read_text(encoding="ascii").strip()


def read_admin_token(directory: Path) -> str:
    """The token that the gateway has made for itself; empty when it was given one, or is not ours to change."""
    try:
        return (directory / "admin-token").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class RuntimeDirectory:
    """An own, locked directory. At most one control process holds it at a time."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path = path
        self._lock_fd = lock_fd

    @classmethod
    def claim(cls, path: Path) -> RuntimeDirectory:
        """Create, check and lock it. :raises StartError: when another control process or user owns it."""
        _private_directory(path.parent, shared=True)
        _private_directory(path, shared=False)
        return cls(path, _locked(path / "lock"))

    @classmethod
    def shared(cls, path: Path) -> RuntimeDirectory:
        """One that another process holds, for a generation that is only tried: it must not write into it."""
        return cls(path, -1)

    @classmethod
    def inherited(cls, path: Path, lock_fd: int, wanted: Path) -> RuntimeDirectory:
        """One that this process holds already, renamed to ``wanted`` if it can be: where the next start looks."""
        directory = cls(path, lock_fd)
        if wanted != path:
            with contextlib.suppress(OSError):
                for left in wanted.glob("*"):
                    left.unlink()
                wanted.rmdir()
            with contextlib.suppress(OSError):
                path.rename(wanted)
                directory.path = wanted
        return directory

    @property
    def held(self) -> bool:
        """By this process; not only :meth:`shared`."""
        return self._lock_fd >= 0

    @property
    def lock_fd(self) -> int:
        return self._lock_fd

    def socket_path(self, pid: int) -> Path:
        """Where the worker ``pid`` waits for a new control process."""
        return self.path / f"worker-{pid}.sock"

    def socket_paths(self) -> Iterator[tuple[int, Path]]:
        """``(pid, path)`` of every hand-over socket, live or stale."""
        for entry in sorted(self.path.iterdir()):
            if match := _SOCKET.fullmatch(entry.name):
                yield int(match[1]), entry

    def write_admin_address(self, address: str) -> None:
        temporary = self.path / "admin.new"
        temporary.write_text(f"{address}\n", encoding="ascii")
        temporary.replace(self.path / "admin")

    def write_admin_token(self, secret: str) -> None:
        """For the commands of this user; nobody else can come into the directory."""
        temporary = self.path / "admin-token.new"
        temporary.unlink(missing_ok=True)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(f"{secret}\n")
        temporary.replace(self.path / "admin-token")

    def release(self) -> None:
        """Forget the admin address and give up the lock; the directory stays for the next start."""
        (self.path / "admin").unlink(missing_ok=True)
        (self.path / "admin-token").unlink(missing_ok=True)
        (self.path / "control.sock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.truncate(self._lock_fd, 0)
        os.close(self._lock_fd)


def _private_directory(path: Path, *, shared: bool) -> None:
    """``shared`` directories may be readable by others; nobody else may write to either kind."""
    try:
        path.mkdir(mode=0o700, parents=shared, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise StartError(f"cannot create the runtime directory {path}: {error.strerror}; see --runtime-dir") from error
    owners = {os.geteuid(), 0} if shared else {os.geteuid()}
    sticky = shared and status.st_mode & stat.S_ISVTX
    forbidden = 0o022 if shared else 0o077
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners:
        raise StartError(f"the runtime directory {path} belongs to somebody else; choose another with --runtime-dir")
    if status.st_mode & forbidden and not sticky:
        raise StartError(f"the runtime directory {path} is open to other users; run chmod 700 {path}")


def _locked(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise StartError(
            f"process {holder} already runs this gateway (it holds {path}); stop it first, or use another --service-id"
            " and --address"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd
