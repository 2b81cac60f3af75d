"""One worker as the control process sees it: what it was sent, what it has in force, what it reports.

Sends the newest state and never waits for it to be read: while the worker is behind, changed names are only noted and
go out together when it reads again. Whether a worker lives, is replaced or drained is ``pool.py``'s business.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from plugin.errors import GatewayError
from plugin.workers.channel import Channel
from plugin.workers.process import Process
from plugin.workers.published import Published
from plugin.workers.sockets import bound_address
from proxy import frames
from proxy.frames import ControlFrames
from proxy.logs import emit
from proxy.messages import (
    PROTOCOL_VERSION,
    AccessLogTarget,
    Applied,
    AuditLogTarget,
    Connection,
    ConnectionPage,
    Counters,
    Drain,
    Hello,
    KeysWanted,
    Kill,
    Killed,
    Listen,
    Listening,
    Ping,
    Pong,
    Query,
    Recall,
    Recollection,
    Start,
    ToControl,
    Update,
)
from proxy.model import ServiceName

logger = logging.getLogger(__name__)


_PASS_AGAIN_S = 0.05
_LISTEN_AGAIN_S = 1.0


class WorkerGone(GatewayError):
    """The worker ended, or did not answer in time."""


@dataclass(slots=True, kw_only=True)
class _Sent:
    generation: int
    names: frozenset[ServiceName] | None
    """``None``: everything."""
    mesh: bool
    size: int
    """Bytes of the frame."""


@dataclass(slots=True)
class _Behind:
    """What has changed since the worker was last sent something."""

    mesh: bool = False
    names: set[ServiceName] = field(default_factory=set)


class Worker:
    def __init__(
        self,
        index: int,
        pid: int,
        published: Published,
        *,
        on_progress: Callable[[Worker], None],
        on_disconnect: Callable[[Worker, str], None],
        on_exit: Callable[[Worker, int | None], None],
        on_keys_wanted: Callable[[Collection[str]], None],
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.index = index
        self.pid = pid
        self.adopted = child is None
        self.draining = False
        self.started_at_s = time.time()
        self.begun_s = time.monotonic()
        self.version = 0
        """Of its protocol; 0 until it has said hello."""
        self.code = ""
        """What its modules run as, for people."""
        self.sent = 0
        """The newest generation that was written to it."""
        self.applied = 0
        """The newest generation that it has in force."""
        self.problems: dict[ServiceName | None, str] = {}
        self.counters: Counters | None = None
        self.revoked = 0
        self.silent = 0
        """Pings since its last answer."""
        self.refused = ""
        """Why it may not serve, after its number; empty when it may."""
        self._published = published
        self._on_progress = on_progress
        self._on_disconnect = on_disconnect
        self._on_keys_wanted = on_keys_wanted
        self._channel: Channel | None = None
        self._behind = _Behind()
        self._synchronised = False
        self._in_flight: deque[_Sent] = deque()
        self._to_pass: dict[str, tuple[bytes, Sequence[int]]] = {}
        self._passing = False
        self._sockets: tuple[socket.socket, ...] = ()
        self._unconfirmed: Listen | None = None
        """What it was told to listen on and has not confirmed yet."""
        self._query_ids = itertools.count(1)
        self._queries: dict[int, asyncio.Future[ConnectionPage | Killed]] = {}
        self._recalls: dict[int, asyncio.Future[Recollection]] = {}
        self.process = Process(pid, lambda code: on_exit(self, code), child)

    async def start(self, connected: socket.socket, start: Start) -> None:
        """Connect to a worker that was just started: it gets ``Start``, and once it has said hello everything, as soon
        as that is complete.

        A worker accepts connections from its first update on; before that its clients wait in the kernel's queue.
        """
        channel = await self._connect(connected, None)
        channel.send(frames.encode(start))

    async def adopt(self, connected: socket.socket, hello: Hello, reader: ControlFrames) -> None:
        """Connect to a worker that said ``hello`` on ``connected``.

        It gets everything, if it speaks our version, but not before the links are known: until then it serves what
        the control process before us told it, which is better than nothing.
        """
        await self._connect(connected, reader)
        self.receive(hello)
        if self.driven and self._published.linked is not None:
            self._send_everything()

    @property
    def driven(self) -> bool:
        """We speak its protocol version (a worker we started does)."""
        return self.version in (0, PROTOCOL_VERSION)

    @property
    def bytes_in_flight(self) -> int:
        """Of updates that it has not put in force yet."""
        return sum(sent.size for sent in self._in_flight)

    def ping(self) -> int:
        """Ask whether it answers; how many times before that it has not."""
        if self._channel is None or not self.driven or not self.version:
            return 0
        self._channel.send(frames.encode(Ping(next(self._query_ids))))
        silent, self.silent = self.silent, self.silent + 1
        return silent

    @property
    def connected(self) -> bool:
        return self._channel is not None and self._channel.open_for_frames

    @property
    def up_to_date(self) -> bool:
        """It has in force what is published, and listens where it should."""
        return (
            self.connected
            and self._unconfirmed is None
            and self._synchronised
            and self.applied >= self._published.generation
        )

    def push(self, update: Update, frame: bytes, names: Collection[ServiceName]) -> None:
        """Send a change, encoded once for all workers, or note it if this one is behind."""
        if not self.connected or not self.driven:
            return
        assert self._channel is not None
        if not self._synchronised:
            # One that has not said hello gets everything when it does.
            if self.version and (self._published.complete or (self.adopted and self._published.linked is not None)):
                self._send_everything()
        elif self._channel.busy:
            self._behind.names.update(names)
            self._behind.mesh |= update.mesh is not None
        else:
            self._sent(update, frozenset(names), frame)

    def redirect_access_log(self, descriptor: int) -> None:
        """Its lines go to ``descriptor`` from now on, or nowhere (-1). The descriptor must stay open until the next
        call: a worker that is behind gets it later."""
        self._pass("access log", AccessLogTarget(descriptor >= 0), (descriptor,) if descriptor >= 0 else ())

    def redirect_audit_log(self, descriptor: int) -> None:
        """As :meth:`redirect_access_log`, for the audit log."""
        self._pass("audit log", AuditLogTarget(descriptor >= 0), (descriptor,) if descriptor >= 0 else ())

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """It listens on exactly these from now on. They must stay open until the next call, as above."""
        wanted = tuple(str(bound_address(one)) for one in sockets)
        self._unconfirmed = Listen(wanted)
        self._sockets = tuple(sockets)
        self._pass("sockets", self._unconfirmed, [one.fileno() for one in sockets])

    def _pass(self, what: str, frame: AccessLogTarget | AuditLogTarget | Listen, descriptors: Sequence[int]) -> None:
        """Send ``frame`` with descriptors, when nothing waits before it; a newer one of ``what`` takes its place."""
        self._to_pass[what] = (frames.encode(frame), descriptors)
        if not self._passing:
            self._pass_now()

    def _pass_now(self) -> None:
        self._passing = False
        channel = self._channel
        while channel is not None and self.driven and self._to_pass:
            what, (frame, descriptors) = next(iter(self._to_pass.items()))
            if not descriptors:
                channel.send(frame)
            elif not channel.send_descriptors(frame, descriptors):
                self._passing = True
                asyncio.get_running_loop().call_later(_PASS_AGAIN_S, self._pass_now)
                return
            del self._to_pass[what]
        self._to_pass.clear()

    def _listens(self, report: Listening) -> None:
        """Descriptors that the worker had no room for are sent again."""
        if self._unconfirmed is None or report.addresses == self._unconfirmed.addresses:
            self._unconfirmed = None
        elif not self._to_pass:
            asyncio.get_running_loop().call_later(_LISTEN_AGAIN_S, self._listen_again, self._unconfirmed)
        self._on_progress(self)

    def _listen_again(self, unconfirmed: Listen) -> None:
        if self._unconfirmed is unconfirmed:
            self.listen(self._sockets)

    def drain(self, timeout_s: float, window_s: float) -> None:
        """Accept no more, and end in ``timeout_s`` and ``window_s``; also a worker of another version obeys."""
        self.draining = True
        if self._channel is not None:
            self._channel.send(frames.encode(Drain(timeout_s, window_s)))

    async def connections(self, after: int, limit: int, deadline_s: float) -> tuple[tuple[Connection, ...], bool]:
        """A page of its live connections, and whether there are more. :raises WorkerGone: without an answer."""
        page = await self._ask(Query(next(self._query_ids), after, limit), deadline_s)
        return page.connections, isinstance(page, ConnectionPage) and page.more

    async def kill(
        self, *, number: int, service: str, source: str, detail: str, deadline_s: float
    ) -> tuple[Connection, ...]:
        """End live connections, see :class:`proxy.messages.Kill`. :raises WorkerGone: without an answer."""
        if not self.driven:
            # It may not know the frame, and would drop us for it.
            raise WorkerGone(f"worker {self.index} (process {self.pid}) is of another version, and only drains")
        frame = Kill(next(self._query_ids), number, service, source, detail)
        return (await self._ask(frame, deadline_s)).connections

    async def _ask(self, question: Query | Kill, deadline_s: float) -> ConnectionPage | Killed:
        if self._channel is None or not self.connected:
            raise WorkerGone(f"worker {self.index} (process {self.pid}) is not connected")
        answer = self._queries[question.id] = asyncio.get_running_loop().create_future()
        self._channel.send(frames.encode(question))
        try:
            return await asyncio.wait_for(answer, deadline_s)
        except TimeoutError as error:
            raise WorkerGone(f"worker {self.index} (process {self.pid}) did not answer in {deadline_s:g} s") from error
        finally:
            self._queries.pop(question.id, None)

    async def recall(self, asked: Recall, deadline_s: float) -> Recollection:
        """What has ended lately; the ID of ``asked`` is given here. :raises WorkerGone: without an answer."""
        if self._channel is None or not self.connected or not self.driven:
            raise WorkerGone(f"worker {self.index} (process {self.pid}) is not connected")
        asked = msgspec.structs.replace(asked, id=next(self._query_ids))
        answer = self._recalls[asked.id] = asyncio.get_running_loop().create_future()
        self._channel.send(frames.encode(asked))
        try:
            return await asyncio.wait_for(answer, deadline_s)
        except TimeoutError as error:
            raise WorkerGone(f"worker {self.index} (process {self.pid}) did not answer in {deadline_s:g} s") from error
        finally:
            self._recalls.pop(asked.id, None)

    def disconnect(self) -> None:
        """Drop the control connection; the worker then goes on by itself."""
        if self._channel is not None:
            self._channel.close()

    async def _connect(self, connected: socket.socket, reader: ControlFrames | None) -> Channel:
        self._channel = await Channel.open(
            connected,
            on_frame=self.receive,
            on_writable=self._catch_up,
            on_closed=self._disconnected,
            frames=reader,
        )
        return self._channel

    def _send_everything(self) -> None:
        update = self._published.full()
        self._behind = _Behind()
        self._synchronised = True
        self._sent(update, None, frames.encode(update))

    def _catch_up(self) -> None:
        behind, self._behind = self._behind, _Behind()
        if not (behind.names or behind.mesh):
            return
        update = self._published.delta(behind.names, mesh=behind.mesh)
        self._sent(update, frozenset(behind.names), frames.encode(update))

    def _sent(self, update: Update, names: frozenset[ServiceName] | None, frame: bytes) -> None:
        assert self._channel is not None
        self._channel.send(frame)
        self.sent = update.generation
        self._in_flight.append(
            _Sent(generation=update.generation, names=names, mesh=update.mesh is not None, size=len(frame))
        )

    def receive(self, frame: ToControl) -> None:
        match frame:
            case Applied():
                self._applied(frame)
            case Counters():
                self.counters = frame
            case KeysWanted():
                self._on_keys_wanted(frame.providers)
            case Hello():
                self._greeted(frame)
            case Pong():
                self.silent = 0
            case Listening():
                self._listens(frame)
            case Recollection():
                recalled = self._recalls.get(frame.id)
                if recalled is not None and not recalled.done():
                    recalled.set_result(frame)
            case ConnectionPage() | Killed():
                answer = self._queries.get(frame.id)
                if answer is not None and not answer.done():
                    answer.set_result(frame)

    def _greeted(self, hello: Hello) -> None:
        self.version = hello.version
        self.code = hello.code
        if not self.adopted and not self.driven:
            self.refused = (
                f"speaks version {hello.version} of the protocol, and this control process version {PROTOCOL_VERSION}: "
                "the program was replaced on disk; run consul-tgw reload, or start the gateway anew"
            )
            message = f"worker {self.index} {self.refused}"
            emit(logger, logging.ERROR, "worker.other_version", message, worker=self.index, pid=self.pid)
            self.process.signal(signal.SIGKILL)
        elif not self.adopted and self._published.complete and not self._synchronised:
            self._send_everything()
        self._on_progress(self)

    def _applied(self, report: Applied) -> None:
        """Problems belong to what an update touched: a later good update of the same service clears them."""
        while self._in_flight and self._in_flight[0].generation <= report.generation:
            done = self._in_flight.popleft()
            if done.names is None:
                self.problems.clear()
            for name in done.names or ():
                self.problems.pop(name, None)
            if done.mesh:
                self.problems.pop(None, None)
        for problem in report.problems:
            self.problems[problem.service] = problem.message
            subject = str(problem.service or "the mesh settings")
            message = f"worker {self.index} keeps what it had for {subject}: {problem.message}"
            emit(logger, logging.WARNING, "worker.update_problem", message, worker=self.index, service=subject)
        self.applied = max(self.applied, report.generation)
        self.revoked += report.revoked
        for ended in report.ended:
            message = f"policy has ended {ended.number} connections or requests of {ended.source} to {ended.service}"
            emit(
                logger,
                logging.INFO,
                "policy.ended",
                f"{message}: {ended.reason}",
                worker=self.index,
                service=ended.service,
                source=ended.source,
                reason=ended.reason,
                count=ended.number,
                generation=report.generation,
            )
        self._on_progress(self)

    def _disconnected(self, problem: str) -> None:
        self._channel = None
        self._to_pass.clear()
        self._unconfirmed = None
        waiting: list[asyncio.Future[Any]] = [*self._queries.values(), *self._recalls.values()]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(WorkerGone(f"worker {self.index} (process {self.pid}) ended"))
        self._on_disconnect(self, problem)
