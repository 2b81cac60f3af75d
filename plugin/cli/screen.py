"""What tables are printed on, once or again and again.

On a terminal a table may be drawn anew until somebody presses q; anywhere else everything is printed once, and as wide
as it needs to be: names that are cut cannot be searched for.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.live import Live

WIDTH_WITHOUT_TERMINAL = 200


def console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)


def can_be_live() -> bool:
    """Somebody looks."""
    return sys.stdout.isatty()


def live(draw: Callable[[], RenderableType], *, every_s: float) -> None:
    """Show what ``draw`` makes, drawn anew until q or Ctrl-C."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(console=console(), screen=True, auto_refresh=False) as shown,
        _keys() as pressed,
    ):
        while True:
            shown.update(draw(), refresh=True)
            if pressed(every_s):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """Waits for so many seconds; true when somebody wants to leave."""
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
    if descriptor < 0:
        yield _wait
        return
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda wait_s: _quits(descriptor, wait_s)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _wait(wait_s: float) -> bool:
    time.sleep(wait_s)
    return False


def _quits(descriptor: int, wait_s: float) -> bool:
    until_s = time.monotonic() + wait_s
    while (left_s := until_s - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left_s)[0]:
            keys = os.read(descriptor, 64)
            if not keys or b"q" in keys.lower():
                return True
    return False


def size(count: float) -> str:
    """``17 B``, ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
