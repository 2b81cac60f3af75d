"""A worker that adds a line on what it holds to a file when SIGUSR2 asks: ``-m tests.floods.measured_worker FILE
--control-fd N``.

It is the worker of ``python -m proxy`` and nothing else of it is touched.
"""

from __future__ import annotations

import asyncio
import collections
import ctypes
import gc
import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from proxy import worker
from proxy.confinement import Confinement
from proxy.sockets.poller import Poller

_HELD = {"Carrier", "Relay", "Steps", "ServerSession", "UpstreamSession", "TLSChannel", "TCPChannel", "_Direction"}
_HELD |= {"HTTPSession", "Exchange", "Wire", "H1Server", "H1Incoming", "H1Client", "H1Outgoing"}
_HELD |= {"H2Server", "H2Stream", "H2Client", "H2Request", "Engine", "EngineStream", "Member", "Search", "Dial"}


def main() -> None:
    # Opened, and the library found, before the worker is confined: later it can open nothing.
    answers = Path(sys.argv[1]).open("w")  # noqa: SIM115 - for as long as the process lives
    library = ctypes.CDLL(None)
    pollers: list[Poller] = []

    class KnownPoller(Poller):
        def __init__(self) -> None:
            super().__init__()
            pollers.append(self)

    def tell(*_: Any) -> None:
        gc.collect()
        library.malloc_trim(0)
        answers.write(json.dumps(_inventory(pollers[0])) + "\n")
        answers.flush()

    worker.Poller = KnownPoller  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR2, tell)
    worker.run(socket.socket(fileno=int(sys.argv[3])), Confinement(user=-1, group=-1, debuggable=True))


def _inventory(poller: Poller) -> dict[str, int]:
    kinds = collections.Counter(type(one).__name__ for one in gc.get_objects())
    return {
        "tasks": len(asyncio.all_tasks(poller.loop)),
        "interests": len(poller._interests),
        "objects": sum(count for kind, count in kinds.items() if kind in _HELD),
    }


if __name__ == "__main__":
    main()
