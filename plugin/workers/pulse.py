"""Finds workers that hang, by asking each one about every second whether it answers.

Decides who hangs, who has recovered and whose time is over; replacing and draining are ``pool.py``'s. Only beats that
come in time count: what has stopped this process, or the whole machine, proves nothing about a worker.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

from plugin.workers.worker import Worker

BEAT_S = 1.0
LATE = 3.0
"""A beat that takes so many times longer was held up here."""
HANG_BEATS = 15
"""Unanswered questions after which a worker is taken for hung ..."""
BYTES_PER_BEAT = 1_000_000
"""... and one more for so much that it may be busy putting in force."""
GRACE_BEATS = 30
"""Until a hung worker that was replaced is killed; if it answers before, it keeps its live connections."""
AGAIN_BEATS = 60
"""Before the next one in the same place may be taken for hung; twice as long each time: never a loop."""
LONGEST_AGAIN_BEATS = 3600


class Pulse:
    def __init__(
        self,
        workers: Callable[[], Sequence[Worker]],
        is_serving: Callable[[Worker], bool],
        replace: Callable[[Worker], None],
        recovered: Callable[[Worker], None],
    ) -> None:
        """``is_serving`` tells a worker in its place from one that is leaving; only such a one is replaced."""
        self._workers = workers
        self._is_serving = is_serving
        self._replace = replace
        self._recovered = recovered
        self._beats = 0
        self._hung: dict[Worker, int] = {}
        """The beat at which each is killed."""
        self._hangs: dict[int, tuple[int, int]] = {}
        """By place: how many workers hung there, and the beat before which there is no next one."""

    async def run(self) -> None:
        """For ever."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(BEAT_S)
            self.beat(late=time.monotonic() - began_s > LATE * BEAT_S)

    def beat(self, *, late: bool) -> None:
        self._beats += 1
        for worker in self._workers():
            if late:
                worker.silent = 0
            worker.ping()
            if self._is_serving(worker) and self._hangs_now(worker):
                self._hung[worker] = self._beats + GRACE_BEATS
                self._replace(worker)
        if not late:
            self._judge()

    def _hangs_now(self, worker: Worker) -> bool:
        if worker.silent <= HANG_BEATS + worker.bytes_in_flight // BYTES_PER_BEAT:
            return False
        hangs, patient_until = self._hangs.get(worker.index, (0, 0))
        if self._beats < patient_until:
            return False
        self._hangs[worker.index] = (hangs + 1, self._beats + min(LONGEST_AGAIN_BEATS, AGAIN_BEATS * 2**hangs))
        return True

    def _judge(self) -> None:
        for worker, deadline in list(self._hung.items()):
            # The question of this beat is still open.
            if worker.process.exited.is_set():
                del self._hung[worker]
            elif worker.silent <= 1:
                del self._hung[worker]
                self._recovered(worker)
            elif self._beats >= deadline:
                del self._hung[worker]
                worker.process.signal(signal.SIGKILL)
