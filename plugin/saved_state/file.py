"""A file in the state directory: private to one user, refused when anybody else could have touched it.

The state is replaced as a whole; to the events lines are added. It knows nothing of what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

from plugin.errors import SavedStateRefused
from plugin.saved_state.form import Owner

LARGEST = 1 << 30
"""Bytes. More than any gateway knows."""


def path_of(directory: Path, owner: Owner) -> Path:
    """Gateways may share a directory."""
    whole = "\0".join((owner.service_id, owner.namespace, owner.partition))
    readable = re.sub(r"[^A-Za-z0-9_-]", "_", owner.service_id)[:40]
    return directory / f"{readable}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}.state"


def check_directory(directory: Path) -> None:
    """Make it if it is not there. :raises SavedStateRefused: when it is not ours alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise SavedStateRefused(
            f"the state directory {directory} cannot be used: {error.strerror}; give this user one with --state-dir"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise SavedStateRefused(f"the state directory {directory} is no directory; name the real one with --state-dir")
    if found.st_uid != os.geteuid():
        raise SavedStateRefused(
            f"the state directory {directory} belongs to user {found.st_uid}; run chown {os.geteuid()} {directory}"
        )
    if found.st_mode & 0o077:
        raise SavedStateRefused(f"the state directory {directory} is open to other users; run chmod 700 {directory}")


def read(path: Path) -> bytes | None:
    """``None`` when there is none. :raises SavedStateRefused: when it is not ours alone or cannot be read."""
    try:
        # Not blocking: a pipe in its place would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if path.is_symlink():
            raise SavedStateRefused("it is a symbolic link") from error
        raise SavedStateRefused(f"it cannot be read: {error.strerror}") from error
    with open(fd, "rb") as opened:
        _check(os.fstat(fd))
        try:
            return opened.read()
        except OSError as error:
            raise SavedStateRefused(f"it cannot be read: {error.strerror}") from error


def _check(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SavedStateRefused("it is no file")
    if found.st_uid != os.geteuid():
        raise SavedStateRefused(f"it belongs to user {found.st_uid}, and this is user {os.geteuid()}")
    if found.st_mode & 0o077:
        raise SavedStateRefused("other users may read or write it, and it holds private keys")
    if found.st_size > LARGEST:
        raise SavedStateRefused(f"it has {found.st_size} bytes, more than any state")


def write(path: Path, content: bytes) -> None:
    """Replace the file: after a crash at any moment the old or the new one is there, whole.

    :raises OSError: and the old one stays.
    """
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        # What an earlier crash left, or somebody put there.
        temporary.unlink()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(fd)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync(path.parent)


def append(path: Path, content: bytes) -> None:
    """Add to the file, or begin it.

    :raises SavedStateRefused: when it is not ours alone.
    :raises OSError: a part may have been added.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb") as opened:
        _check(os.fstat(fd))
        opened.write(content)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
