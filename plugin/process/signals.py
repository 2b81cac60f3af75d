"""What the operator or the service manager asks of the control process by signals."""

from __future__ import annotations

import asyncio
import signal


class Signals:
    """SIGTERM and SIGINT ask to stop; asked twice means now. SIGHUP asks to read files again."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        self.read_again = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self.read_again.set)

    def _asked_to_stop(self) -> None:
        (self.stop_now if self.stop.is_set() else self.stop).set()
