"""A worker that tells what it holds when SIGUSR2 asks: ``-m tests.floods.measured_worker FILE --control-fd N``.

It is the worker of ``python -m proxy`` and nothing else of it is touched.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from proxy import worker
from proxy.confinement import Confinement
from proxy.poller import Poller

_HELD = {"Carrier", "Relay", "Steps", "ServerSession", "UpstreamSession", "TLSChannel", "TCPChannel", "_Direction"}


def main() -> None:
    answer = Path(sys.argv[1])
    pollers: list[Poller] = []

    class KnownPoller(Poller):
        def __init__(self) -> None:
            super().__init__()
            pollers.append(self)

    def tell(*_: Any) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        unfinished = answer.with_suffix(".new")
        unfinished.write_text(json.dumps(_inventory(pollers[0])))
        unfinished.rename(answer)

    worker.Poller = KnownPoller  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR2, tell)
    worker.run(socket.socket(fileno=int(sys.argv[3])), Confinement(user=-1, group=-1, debuggable=True))


def _inventory(poller: Poller) -> dict[str, Any]:
    loop: Any = poller.loop
    kinds = collections.Counter(type(one).__name__ for one in gc.get_objects())
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "rss_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "tasks": len(asyncio.all_tasks(loop)),
        "interests": len(poller._interests),
        "objects": sum(count for kind, count in kinds.items() if kind in _HELD),
    }


if __name__ == "__main__":
    main()
