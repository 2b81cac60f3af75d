"""What goes through exec(2): the process stays, with its id, its lock and its sockets, and runs another program.

Signals that come between the two programs wait for the second one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping
from typing import NoReturn

import msgspec

from plugin.errors import StartError
from plugin.reload import program
from plugin.reload.messages import Inheritance

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def become(command: list[str], source: str, inheritance: Inheritance) -> NoReturn:
    """Run ``command`` in this process. :raises OSError: when it cannot be executed."""
    memory = os.memfd_create("consul-tgw", 0)
    with os.fdopen(os.dup(memory), "wb") as file:
        file.write(msgspec.msgpack.encode(inheritance))
    kept = (memory, inheritance.lock_fd, inheritance.admin_fd, inheritance.answer_fd, *inheritance.sockets)
    for descriptor in kept:
        if descriptor >= 0:
            os.set_inheritable(descriptor, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.execve(command[0], command, program.environment(source, {program.INHERITED: str(memory)}, managed=True))


def receive(environment: MutableMapping[str, str] = os.environ) -> Inheritance | None:
    """What the former program of this process has left, once. :raises StartError: when it is not understood."""
    text = environment.pop(program.INHERITED, "")
    if not text:
        return None
    with os.fdopen(int(text), "rb") as file:
        file.seek(0)
        try:
            inheritance = msgspec.msgpack.decode(file.read(), type=Inheritance)
        except msgspec.MsgspecError as error:
            raise StartError(f"what the former generation left is not understood: {error}") from error
    for descriptor in (inheritance.lock_fd, inheritance.admin_fd, inheritance.answer_fd, *inheritance.sockets):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    return inheritance


def signals_again() -> None:
    """Handlers are in place: what has waited may come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
