"""One line for each connection that has ended: the built-in JSON, or as proxy-defaults say.

They leave through an :class:`proxy.records.outlet.Outlet`, which delays no connection.
"""

from __future__ import annotations

import time

import msgspec

from proxy.model import AccessLogFormat
from proxy.records.access_format import render
from proxy.records.access_heads import Heads
from proxy.records.access_record import AccessRecord
from proxy.records.outlet import Outlet


class AccessLog:
    """Writes records to a file descriptor; -1 writes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.layout: AccessLogFormat | None = None
        """``None``: the built-in line, for every connection."""
        self._encoder = msgspec.json.Encoder()
        self._outlet: Outlet | None = None if descriptor < 0 else Outlet(descriptor)
        self._former: list[Outlet] = []
        self._lost_before = 0

    @property
    def dropped(self) -> int:
        """Lines that were lost because what they go to did not take them."""
        outlets = [*self._former, self._outlet] if self._outlet is not None else self._former
        return self._lost_before + sum(outlet.dropped for outlet in outlets)

    @property
    def wanted(self) -> bool:
        """False: lines go nowhere, and need not be made."""
        return self._outlet is not None

    @property
    def wants_local_address(self) -> bool:
        """The lines tell which address the client connected to."""
        return self.layout is not None and self.layout.uses("DOWNSTREAM_LOCAL_")

    def redirect(self, descriptor: int) -> None:
        """Lines of connections that end from now on go to ``descriptor``, which is ours then, or nowhere (-1).

        Each has a thread of its own: one whose pipe is full keeps nothing from going elsewhere.
        """
        if self._outlet is not None:
            self._outlet.retire()
            self._former.append(self._outlet)
        self._lost_before += sum(outlet.dropped for outlet in self._former if outlet.ended)
        self._former = [outlet for outlet in self._former if not outlet.ended]
        self._outlet = None if descriptor < 0 else Outlet(descriptor)

    def write(self, record: AccessRecord, opened_at_s: float, heads: Heads | None = None) -> None:
        """``opened_at_s`` is when the connection was accepted, or the request came, Unix time."""
        outlet, layout = self._outlet, self.layout
        if outlet is None or (layout is not None and not layout.listener and not record.service):
            return
        if not outlet.has_room():
            return
        if layout is not None and layout.parts:
            outlet.put(render(layout, record, opened_at_s, heads))
        else:
            outlet.put(self._encoder.encode(record) + b"\n")

    def close(self, timeout_s: float) -> None:
        """Write what waits, but no longer than this."""
        until_s = time.monotonic() + timeout_s
        outlets = [*self._former, self._outlet] if self._outlet is not None else self._former
        for outlet in outlets:
            outlet.stop()
        for outlet in outlets:
            outlet.join(max(0.0, until_s - time.monotonic()))
