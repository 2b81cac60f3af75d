"""Giving up root: become another user for good, and keep the right to bind low ports only until they are bound.

Linux alone (capabilities(7)). Must run before any thread or task: credentials belong to threads.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import struct

from plugin.errors import ConfigError, StartError

_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_BIND_SERVICE = 10
_libc = ctypes.CDLL(None, use_errno=True)


def become(name: str) -> None:
    """Run as the user ``name`` from now on, with its groups, and with CAP_NET_BIND_SERVICE as the only right of root.

    :raises ConfigError: when there is no such user.
    :raises StartError: when we are neither root nor that user.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--user {name}: there is no such user on this host; create it, or name another") from None
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


def no_more_ports() -> None:
    """Every socket is bound: give the last right up. Nothing happens where it was not kept by :func:`become`."""
    if os.geteuid() != 0:
        _keep(0)


def _keep(capabilities: int) -> None:
    """Effective and permitted; nothing is inheritable, so that workers have none. :raises OSError: when refused."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)))


def _check(result: int) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
