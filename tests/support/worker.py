"""One real worker process, driven by hand-written updates: no Consul, no control process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from proxy.frames import ControlFrames, encode
from proxy.messages import Applied, Counters, Hello, Limits, Listener, Start, ToControl, ToWorker, Update
from tests.support.eventually import eventually


class WorkerProcess:
    """``python -m proxy`` with one listening socket on loopback."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self.listening.getsockname()[1]
        self.control, self._worker_end = socket.socketpair()
        self._log_read, self._log_write = os.pipe()
        self.frames: list[ToControl] = []
        self.records: list[dict[str, Any]] = []
        self.process: asyncio.subprocess.Process | None = None
        self._generation = 0
        self._parser = ControlFrames()
        self._log = b""
        self.control_closed = False

    async def start(
        self,
        *,
        limits: Limits | None = None,
        handover_path: Path | str = "",
        log: IO[bytes] | int | None = None,
        access_log_fd: int | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "proxy"),
    ) -> None:
        """``program`` is what the interpreter runs.

        ``log`` takes its own log lines, which otherwise go to this process's standard error; ``access_log_fd`` its
        access log, which then is not in ``records``."""
        log_to = self._log_write if access_log_fd is None else access_log_fd
        passed = (self._worker_end.fileno(), self.listening.fileno(), log_to)
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "--control-fd", str(passed[0]), *arguments),
            pass_fds=passed,
            stderr=log,
            env={**os.environ, **(environment or {})},
        )
        self._worker_end.close()
        os.close(self._log_write)
        os.set_blocking(self._log_read, False)
        loop = asyncio.get_running_loop()
        self.control.setblocking(False)
        loop.add_reader(self.control.fileno(), self._on_frames)
        loop.add_reader(self._log_read, self._on_log)
        await self.send(
            Start(
                gateway="tgw",
                worker=1,
                listeners=(Listener(self.listening.fileno(), f"127.0.0.1:{self.port}"),),
                limits=limits or Limits(),
                access_log_fd=passed[2],
                handover_path=str(handover_path),
            )
        )
        await eventually(lambda: any(isinstance(frame, Hello) for frame in self.frames))

    async def send(self, frame: ToWorker) -> None:
        await asyncio.get_running_loop().sock_sendall(self.control, encode(frame))

    async def update(self, **fields: Any) -> Applied:
        """Send an Update and wait until it is in force."""
        self._generation += 1
        generation = self._generation
        await self.send(Update(generation=generation, **fields))
        applied: Applied = await eventually(lambda: self._applied(generation))
        return applied

    def _applied(self, generation: int) -> Applied | None:
        found = (f for f in self.frames if isinstance(f, Applied) and f.generation == generation)
        return next(found, None)

    @property
    def counters(self) -> Counters | None:
        return next((frame for frame in reversed(self.frames) if isinstance(frame, Counters)), None)

    def memory_mib(self) -> float:
        """What it holds at the moment (RSS)."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the worker has ended")

    def descriptors(self) -> int:
        """How many it has open."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def record(self, **expected: Any) -> dict[str, Any]:
        """The first access log line with these values, when it has come."""

        def find() -> dict[str, Any] | None:
            matching = (r for r in self.records if all(r.get(key) == value for key, value in expected.items()))
            return next(matching, None)

        try:
            record: dict[str, Any] = await eventually(find)
        except AssertionError:
            raise AssertionError(f"no access log line with {expected}; there are {self.records}") from None
        return record

    def _on_frames(self) -> None:
        data = self.control.recv(1024 * 1024)
        if data:
            self.frames.extend(self._parser.feed(data))
        else:
            self.control_closed = True
            asyncio.get_running_loop().remove_reader(self.control.fileno())

    def _on_log(self) -> None:
        data = os.read(self._log_read, 1024 * 1024)
        if not data:
            asyncio.get_running_loop().remove_reader(self._log_read)
            return
        *lines, self._log = (self._log + data).split(b"\n")
        self.records.extend(json.loads(line) for line in lines)

    async def stop(self) -> None:
        loop = asyncio.get_running_loop()
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        loop.remove_reader(self.control.fileno())
        loop.remove_reader(self._log_read)
        self.control.close()
        self.listening.close()
        os.close(self._log_read)


@asynccontextmanager
async def running_worker(**options: Any) -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess()
    try:
        await worker.start(**options)
        yield worker
    finally:
        await worker.stop()


__all__: Sequence[str] = ["WorkerProcess", "running_worker"]
