"""A worker reduced to its control protocol: says hello, applies everything, answers whoever connects with its pid.

It stands for :mod:`proxy` where a test is about processes and frames, not about connections. ``SCRIPTED_EXIT=1`` makes
it exit as soon as it has started.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
from pathlib import Path

from proxy import frames
from proxy.messages import (
    PROTOCOL_VERSION,
    Applied,
    Connection,
    ConnectionPage,
    Count,
    Counters,
    Drain,
    Hello,
    Listen,
    Listening,
    Ping,
    Pong,
    Query,
    Start,
    ToControl,
    ToWorker,
    Update,
)


class ScriptedWorker:
    def __init__(self, control: socket.socket) -> None:
        self.control: socket.socket | None = control
        self.reader = frames.WorkerFrames()
        self.start: Start | None = None
        self.listeners: list[socket.socket] = []
        self.descriptors: list[int] = []
        self.waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.generation = 0
        self.accepted = 0
        self.services: dict[str, str] = {}

    def run(self) -> None:
        while True:
            watched = [self.control or self.waiting, *self.listeners]
            for readable in select.select(watched, [], [])[0]:
                if readable is self.control:
                    self._control_readable()
                elif readable is self.waiting:
                    self._adopted()
                else:
                    self._answer(readable)

    def _control_readable(self) -> None:
        assert self.control is not None
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, 65536, 253)
            self.descriptors += descriptors
        except ConnectionResetError:  # it died with something of ours unread
            data = b""
        if not data:
            self.control = None
            return
        for frame in self.reader.feed(data):
            self._obey(frame)

    def _obey(self, frame: ToWorker) -> None:
        match frame:
            case Start():
                self._started(frame)
            case Update():
                known = {} if frame.full else self.services
                kept = {str(name): self.services[str(name)] for name in frame.keep if str(name) in self.services}
                self.services = {**known, **kept, **{str(one.name): one.protocol for one in frame.upserts}}
                for name in frame.removals:
                    self.services.pop(str(name), None)
                self.generation = frame.generation
                self._send(Applied(frame.generation))
            case Query():
                shown = [
                    Connection(number, "client", "web", name, "sni", "endpoint", 0.0, 0, 0, protocol)
                    for number, (name, protocol) in enumerate(sorted(self.services.items()), 1)
                ]
                page = tuple(one for one in shown if one.number > frame.after)[: frame.limit]
                self._send(ConnectionPage(frame.id, page, len(shown) > frame.after + frame.limit))
            case Listen():
                self._listen(frame)
            case Ping():
                self._send(Pong(frame.id))
            case Drain():
                sys.exit(0)

    def _listen(self, frame: Listen) -> None:
        taken = [self.descriptors.pop(0) for _ in frame.addresses]
        for listener in self.listeners:
            listener.close()
        self.listeners = [socket.socket(fileno=descriptor) for descriptor in taken]
        self._send(Listening(frame.addresses))

    def _started(self, start: Start) -> None:
        self.start = start
        self.listeners = [socket.socket(fileno=listener.fd) for listener in start.listeners]
        self.waiting.bind(start.handover_path)
        self.waiting.listen()
        self._send(self._hello())

    def _adopted(self) -> None:
        self.control, _ = self.waiting.accept()
        self.reader = frames.WorkerFrames()
        hello = frames.encode(self._hello("SCRIPTED_VERSION_WHEN_ADOPTED"))
        socket.send_fds(self.control, [hello], [listener.fileno() for listener in self.listeners])

    def _hello(self, variable: str = "SCRIPTED_VERSION") -> Hello:
        assert self.start is not None
        version = int(os.environ.get(variable, PROTOCOL_VERSION))
        addresses = tuple(listener.address for listener in self.start.listeners)
        return Hello(version, os.getpid(), self.start.worker, self.start.gateway, self.generation, addresses)

    def _answer(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.sendall(str(os.getpid()).encode())
        self.accepted += 1
        count = Count("legacy", "web", "client_eof", self.accepted, 10 * self.accepted, 20 * self.accepted)
        self._send(Counters((count,), 0, 0, self.accepted, 0))

    def _send(self, frame: ToControl) -> None:
        if self.control is not None:
            with contextlib.suppress(OSError):
                self.control.sendall(frames.encode(frame))


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--control-fd", type=int, required=True)
    if os.environ.get("SCRIPTED_EXIT"):
        sys.exit(3)
    ScriptedWorker(socket.socket(fileno=arguments.parse_args().control_fd)).run()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
