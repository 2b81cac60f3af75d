"""What is said for a reload: between the command and the gateway, and between two generations of the control process.

Two generations may run different code, so fields are only ever added, at the end, with defaults.
"""

from __future__ import annotations

import msgspec

from plugin.workers.counters import Totals
from proxy.messages import Counters


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """From ``consul-tgw reload``, one line of JSON."""

    executable: str
    """The Python interpreter of the new generation."""
    source: str
    """The source tree to import from; empty when the program is installed."""
    arguments: tuple[str, ...] | None
    """Of ``consul-tgw run``; ``None``: the same as now."""
    timeout_s: float
    """How long the new generation may take to get ready."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """To ``consul-tgw reload``, one line of JSON."""

    reloaded: bool
    text: str


class Briefing(msgspec.Struct, frozen=True, kw_only=True):
    """To the new generation, before anything else; one line of JSON."""

    service_id: str
    directory: str
    """The runtime directory."""
    addresses: tuple[str, ...]
    """Where the gateway listens now."""
    timeout_s: float
    consul_away: bool = False
    """Consul answers nobody: the saved state, which is that of the running generation, has to do."""
    sockets_each: int = 0
    """For how many workers the service manager has given listening sockets; 0: it has given none."""


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """From the new generation, one line of JSON."""

    pids: tuple[int, ...] = ()
    """Its workers. They have the newest state in force and no socket yet."""
    problem: str = ""
    """Why it is not ready; empty when it is."""
    restored: bool = False
    """The workers have the saved state in force."""


class Inheritance(msgspec.Struct, frozen=True, kw_only=True):
    """What a control process leaves to the one that takes its place in the same process; msgpack."""

    service_id: str
    directory: str
    lock_fd: int
    sockets: tuple[int, ...]
    """Descriptors of the listening sockets."""
    admin_fd: int
    answer_fd: int
    """Where ``consul-tgw reload`` waits for an :class:`Answer`; -1: nowhere."""
    pids: tuple[int, ...]
    """The workers that are to serve; every other one is replaced."""
    registered: bool
    reloads: int
    restarts: int
    ended: Totals
    counters: dict[int, Counters]
    """The last ones of each worker, by process id."""
    restored: bool = False
    """The workers have the saved state in force."""
    sockets_each: int = 0
    """As of a :class:`Briefing`."""
