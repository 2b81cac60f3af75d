"""Giving up root: become another user for good, and keep the right to bind low ports only until they are bound.

Also whom the workers become, and that nobody reads the memory of the control process.

Linux alone (capabilities(7)). Must run before any thread or task: credentials belong to threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import struct

from plugin.errors import ConfigError, StartError

UNPRIVILEGED = "nobody"
"""Whom the workers of root become when nobody says otherwise."""
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_BIND_SERVICE = 10
_libc = ctypes.CDLL(None, use_errno=True)


def become(name: str) -> None:
    """Run as the user ``name`` from now on, with its groups, and with CAP_NET_BIND_SERVICE as the only right of root.

    :raises ConfigError: when there is no such user.
    :raises StartError: when we are neither root nor that user.
    """
    user = _known("--user", name)
    if os.geteuid() == user.pw_uid:
        return
    if os.geteuid() != 0:
        raise StartError(
            f"--user {name}: only root can become another user, and this is user {os.geteuid()}; start it as root, or"
            f" as {name} without --user"
        )
    try:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
        _keep(1 << _CAP_NET_BIND_SERVICE)
    except OSError as error:
        raise StartError(
            f"--user {name}: cannot become it: {error.strerror}; the container or service lacks CAP_SETUID or"
            " CAP_SETGID"
        ) from error


def worker_identity(name: str) -> tuple[int, int] | None:
    """``(uid, gid)`` that workers become, or ``None`` when they stay what we are; ``name`` is ``--worker-user``.

    Root's workers never stay root. :raises ConfigError: when that cannot be.
    """
    if os.geteuid() != 0:
        if name and _known("--worker-user", name).pw_uid != os.geteuid():
            raise ConfigError(
                f"--worker-user {name}: only root can start workers as another user, and this is user {os.geteuid()};"
                " leave the flag out, or start the gateway as root"
            )
        return None
    user = _known("--worker-user", name or UNPRIVILEGED)
    if user.pw_uid == 0:
        raise ConfigError(f"--worker-user {user.pw_name}: that is root; name an unprivileged user")
    return user.pw_uid, user.pw_gid


def guard_memory(*, debuggable: bool) -> None:
    """No core file, no debugger, no ``/proc/PID/mem`` or ``environ`` for anybody but root, unless ``debuggable``.

    Call it after ``become``: a change of user sets the kernel's flag to what the host says.

    :raises StartError: when the kernel refuses.
    """
    try:
        if not debuggable:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _check(_libc.prctl(_PR_SET_DUMPABLE, int(debuggable), 0, 0, 0))
    except OSError as error:
        raise StartError(f"cannot close this process's memory: {error.strerror}; see --allow-debugging") from error


def no_more_ports() -> None:
    """Every socket is bound: give the last right up. Nothing happens where it was not kept by :func:`become`."""
    if os.geteuid() != 0:
        _keep(0)


def _known(flag: str, name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"{flag} {name}: there is no such user on this host; create it, or name another") from None


def _keep(capabilities: int) -> None:
    """Effective and permitted; nothing is inheritable, so that workers have none. :raises OSError: when refused."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
