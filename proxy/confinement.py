"""A worker gives up what it will not need again, before it talks to anybody: root, readers of its memory, files.

Landlock (landlock(7)) binds the process and every thread it starts from then on; there is no way back. What is open
stays usable, so descriptors that come from the control process work as before. Must run while there is one thread.
Knows nothing of what a worker does.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
from dataclasses import dataclass
from resource import RLIMIT_CORE, setrlimit

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# The same numbers on every architecture since Linux 5.13.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""Rights on files by the version of Landlock that brought them: reading to making links, REFER, TRUNCATE, IOCTL_DEV."""
_BIND_TCP = 1
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6

_USED_LATER = (
    "concurrent.futures.thread",
    "cryptography.hazmat.backends.openssl.backend",
    "encodings.idna",
    "linecache",
    "stringprep",
    "traceback",
    "unicodedata",
)
"""Modules that libraries import only when they need them: there are no files any more by then."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class ConfinementError(Exception):
    """The worker cannot become what it was told to be. It must not serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What to give up besides files."""

    user: int = -1
    """Whom to become, as root; -1 is to stay."""
    group: int = -1
    debuggable: bool = False
    """Leave the memory to debuggers and core files of the same user."""


def hide_memory() -> None:
    """No core file, no ptrace, no ``/proc/PID/mem`` or ``environ`` for anybody but root."""
    setrlimit(RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def confine(wanted: Confinement) -> str:
    """Give up everything. Returns why files are not closed, for people; empty when they are.

    :raises ConfinementError: when the user cannot be changed, or rights could be gained by executing a program.
    """
    for name in _USED_LATER:
        importlib.import_module(name)
    try:
        if wanted.user >= 0 and os.geteuid() != wanted.user:
            _become(wanted.user, wanted.group)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # After the user: a change of user sets this flag to what the host says.
        if wanted.debuggable:
            _prctl(_PR_SET_DUMPABLE, 1)
        else:
            hide_memory()
    except OSError as error:
        raise ConfinementError(f"cannot become user {wanted.user}: {error.strerror}") from error
    return _close_files()


def _become(user: int, group: int) -> None:
    """Linux takes every capability away with the last of the three user IDs."""
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if os.getresuid() != (user, user, user):
        raise PermissionError(errno.EPERM, "the kernel took another one")  # -1 means: leave it as it is


def _close_files() -> str:
    try:
        version = _syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
        ruleset = _syscall(_CREATE_RULESET, *_ruleset(version), 0)
    except OSError as error:
        return f"this kernel has no Landlock, or the sandbox around us forbids it: {error.strerror}"
    try:
        _syscall(_RESTRICT_SELF, ruleset, 0)
    except OSError as error:
        return f"Landlock cannot be used: {error.strerror}"
    finally:
        os.close(ruleset)
    return ""


def _ruleset(version: int) -> tuple[ctypes.Array[ctypes.c_uint64], int]:
    """``struct landlock_ruleset_attr`` and its size: everything that is named and allowed by no rule is forbidden."""
    fields = [sum(rights for since, rights in _FILES.items() if since <= version)]
    if version >= _NETWORK_SINCE:
        fields.append(_BIND_TCP)
    if version >= _SCOPES_SINCE:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    return attributes, ctypes.sizeof(attributes)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        _raise()


def _syscall(number: int, *arguments: ctypes.Array[ctypes.c_uint64] | int | None) -> int:
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *words)
    if result < 0:
        _raise()
    return result


def _raise() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
