"""The places for workers, each with its own listening sockets, which outlive every worker that stands there.

Decides which socket belongs to which place and when one is closed; starting and ending workers is ``pool.py``'s.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.workers.sockets import allot, bound_address, distinct
from plugin.workers.worker import Worker

LONGEST_BACKOFF_S = 5.0
FREE_RESTARTS = 3


def restart_delay_s(quick_deaths: int) -> float:
    """Nothing for the first few deaths in a row, then growing: a crash loop must not take the machine with it."""
    return 0.0 if quick_deaths <= FREE_RESTARTS else min(LONGEST_BACKOFF_S, 0.1 * 2 ** (quick_deaths - FREE_RESTARTS))


@dataclass(slots=True)
class Place:
    index: int
    sockets: tuple[socket.socket, ...] = ()
    """One for each address."""
    retiring: tuple[socket.socket, ...] = ()
    """Of addresses that are no longer wanted, until sidecars have turned away from them."""
    worker: Worker | None = None
    quick_deaths: int = 0
    last_exit: str = ""

    @property
    def all_sockets(self) -> tuple[socket.socket, ...]:
        return self.sockets + self.retiring

    @property
    def complaint(self) -> str:
        """Why there is no worker, for people."""
        return f"worker {self.index} is not running: {self.last_exit or 'starting'}"


class Places:
    def __init__(self, count: int, addresses: tuple[HostPort, ...], retire_after_s: float) -> None:
        self.addresses = addresses
        """As bound, or as wanted before that."""
        self._retire_after_s = retire_after_s
        self._retirement: asyncio.TimerHandle | None = None
        self._places = [Place(index) for index in range(count)]

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    @property
    def workers(self) -> list[Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    def of(self, worker: Worker) -> Place | None:
        """``None`` for one that has been replaced."""
        return next((place for place in self._places if place.worker is worker), None)

    def free(self) -> Place | None:
        return next((place for place in self._places if place.worker is None), None)

    def listening_sockets(self) -> list[socket.socket]:
        return [one for place in self._places for one in place.all_sockets]

    def take(self, listeners: Sequence[socket.socket]) -> list[StartError]:
        """Listen on what is wanted, ``listeners`` first: sockets that are there already. Descriptors of sockets that
        a place has are closed."""
        own = distinct(one for place in self._places for one in place.sockets)
        known = {os.fstat(one.fileno()).st_ino for one in own}
        return self.allot(self.addresses, [one for one in listeners if os.fstat(one.fileno()).st_ino not in known])

    def allot(self, addresses: Sequence[HostPort], spare: Sequence[socket.socket] = ()) -> list[StartError]:
        """Listen on these from now on; sockets of other addresses are closed after a while. Workers are not told.

        Returns a problem for each address that cannot be bound: the others are in force.
        """
        allotted = allot(addresses, [place.all_sockets for place in self._places], spare)
        for place, sockets in zip(self._places, allotted.places, strict=True):
            place.sockets, place.retiring = sockets, ()
        for number, listener in enumerate(allotted.unwanted):
            self._places[number % len(self._places)].retiring += (listener,)
        if self._retirement is not None:
            self._retirement.cancel()
            self._retirement = None
        if allotted.unwanted:
            self._retirement = asyncio.get_running_loop().call_later(self._retire_after_s, self._retire)
        self.addresses = tuple(dict.fromkeys(map(bound_address, self._places[0].sockets)))
        return allotted.problems

    def tell_workers(self) -> None:
        """Which sockets are theirs now."""
        for place in self._places:
            if place.worker is not None:
                place.worker.listen(place.all_sockets)

    def close(self) -> None:
        for listener in self.listening_sockets():
            listener.close()
        for place in self._places:
            place.sockets, place.retiring = (), ()

    def _retire(self) -> None:
        """Workers first: each empties the queue of its socket before it closes the last descriptor of it."""
        self._retirement = None
        for place in self._places:
            unwanted, place.retiring = place.retiring, ()
            if place.worker is not None and unwanted:
                place.worker.listen(place.sockets)
            for listener in unwanted:
                listener.close()
