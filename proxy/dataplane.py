"""One worker's data plane: takes connections in, keeps track of the live ones, applies updates to both.

A change of policy costs one decision for each distinct source of the services it touches, and ends only the
connections that are newly denied.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import msgspec

from proxy import logs
from proxy.carrier import Carrier
from proxy.connection import ConnectionLife
from proxy.errors import UpstreamError
from proxy.http.pool import Pools
from proxy.http.record import recorded, refused
from proxy.http.session import LOOKS_EACH_S
from proxy.http.wire import Turn, Wire
from proxy.live import LiveConnections, text_of
from proxy.messages import (
    Applied,
    Connection,
    ConnectionPage,
    Counters,
    Ended,
    Kill,
    Killed,
    Limits,
    Query,
    Recall,
    Recollection,
    Update,
)
from proxy.model import CloseReason, Service, ServiceName
from proxy.overload import LineBudget, Reminder, Room
from proxy.pending import PendingHandshakes
from proxy.policy.identity import MeshGateway
from proxy.policy.intentions import Refusal
from proxy.records.access_log import AccessLog
from proxy.records.audit_log import AuditLog
from proxy.records.recent import Recent, remarkable
from proxy.records.telemetry import Telemetry
from proxy.routes import RouteTable
from proxy.sockets.channel import Buffers, Channel
from proxy.sockets.descriptors import OpenFiles
from proxy.sockets.lingering import Lingering
from proxy.sockets.listener import printed
from proxy.sockets.poller import Poller
from proxy.sockets.streams import Streams
from proxy.upstream.shortage import ShortageError, ShortageLog

if TYPE_CHECKING:
    from proxy.http.exchange import Exchange
    from proxy.http.session import HTTPSession

logger = logging.getLogger(__name__)


class DataPlane:
    """Everything the connections of one worker share."""

    def __init__(
        self,
        poller: Poller,
        *,
        worker: int,
        limits: Limits,
        access_log: AccessLog,
        descriptors: int,
        open_files: OpenFiles | None = None,
        audit_log: AuditLog | None = None,
    ) -> None:
        """``descriptors``: how many this process may have open; ``open_files`` says how many it has."""
        self._open_files = open_files
        self.audit = audit_log or AuditLog(-1)
        self.loop = poller.loop
        self.buffers = Buffers(-(-limits.stalled_bytes // max(limits.workers, 1)))
        self.streams = Streams(self.loop)
        self.poller = poller
        self.routes = RouteTable()
        self.live = LiveConnections()
        self.telemetry = Telemetry()
        self._shortages = ShortageLog(self.loop.time)
        self.alone_since_s: float | None = None
        """Monotonic time since which no control process has said what is in force."""
        self.keys_wanted: set[str] = set()
        """Token providers of which a token named a key that is not known; the control process has not been told yet."""
        self.pending = PendingHandshakes(self.loop, limits.handshake_timeout_s)
        self._room = Room(limits, descriptors)
        self.turn = Turn(self.loop)
        self.pools = Pools(self.loop, self._room.connections)
        self._draining = False
        self._looking: asyncio.TimerHandle | None = None
        """For exchanges in which nothing moves; only while there is a connection of layer 7."""
        self.lingering = Lingering(poller, self._room.pending_handshakes)
        self._full = Reminder("limits.reached")
        self._lines_of_strangers = LineBudget()
        self._worker = worker
        self._access_log = access_log
        self._recent = Recent()
        self._numbers = itertools.count(1)
        self._idle = asyncio.Event()
        self._idle.set()

    def admit(self, client: socket.socket, address: str) -> None:
        """Take over an accepted socket. ``address`` is ``ip:port``."""
        self.telemetry.accepted += 1
        life = ConnectionLife(next(self._numbers), address, wall_s=time.time(), monotonic_s=self.loop.time())
        if self._access_log.wants_local_address:
            life.local_address = _local_address(client)
        carrier = Carrier(self, client, life)
        if over := self._make_room():
            carrier.refuse_at_once(over)
            return
        self.live.add(carrier)
        self._idle.clear()
        self.pending.add(carrier)
        carrier.start()

    def _make_room(self) -> str:
        """Let somebody go who has less claim to the place than a newcomer; else say why there is no room."""
        room, pending = self._room, self.pending
        if room.pending_handshakes and len(pending) >= room.pending_handshakes:
            full = f"{room.pending_handshakes} handshakes of this worker are pending, its share of the limit"
            loser = pending.oldest()
        elif len(self.live) >= room.connections:
            full = f"this worker has {room.connections} connections, {room.limited_by}"
            loser = pending.oldest_silent()
        else:
            return ""
        self._full.note(
            f"{full}: {'the oldest unfinished one is ended' if loser else 'a new one is refused'}", self.loop.time()
        )
        if loser is None:
            return full
        pending.over(loser.life.number)
        loser.give_way(f"{full}; a newer client took its place")
        return ""

    def too_old(self) -> str:
        """Why nobody new may be let in although the policy would; empty when the state is young enough."""
        mesh = self.routes.mesh
        if mesh is None or not mesh.max_state_age_s:
            return ""
        if mesh.stale:
            return f"Consul has confirmed nothing for {mesh.max_state_age_s:g} s, the maximum"
        if self.alone_since_s is not None and self.loop.time() - self.alone_since_s > mesh.max_state_age_s:
            return f"there is no control process for {mesh.max_state_age_s:g} s, the maximum"
        return ""

    def over_limit_of(self, service: Service) -> str:
        """Why there is no room for one more connection of ``service``; empty when there is."""
        own = service.max_connections
        most = self._room.of_a_service if own is None else self._room.share(own)
        if not most or self.live.count(service.name) < most:
            return ""
        source = "MaxInboundConnections of its service-defaults" if own is not None else "--max-service-connections"
        full = f"{service.name} has {most} connections in this worker, its share of {source}"
        self._full.note(f"{full}: a new one is refused", self.loop.time())
        return full

    def dials_failed(self, service: str, failures: Collection[UpstreamError], ejected: int) -> None:
        """Attempts of one connection of ``service`` have failed, and ``ejected`` endpoints are left out from now on."""
        shortages = [failure for failure in failures if isinstance(failure, ShortageError)]
        self.telemetry.dialled(service, len(failures) - len(shortages), ejected, len(shortages))
        for shortage in shortages:
            self._shortages.note(service, shortage)

    def ended(self, carrier: Carrier, received: int, sent: int) -> None:
        """A carrier has closed; count it, log it, forget it."""
        self.live.remove(carrier)
        if not self.live:
            self._idle.set()
        life = carrier.life
        assert life.reason is not None
        self.telemetry.closed(life.service, carrier.source_text, str(life.reason), received, sent)
        if self.audit.wanted:
            self.audit.connection_ended(carrier, self.loop.time())
        if not self._notes(life.reason) or life.reason is CloseReason.NO_BYTES:
            return
        if carrier.asked and life.reason not in (CloseReason.FLOOD, CloseReason.KILLED):
            return  # its requests were logged, one by one; a flood is of none of them, and an operator gave a reason
        if carrier.source is not None or self._lines_of_strangers.spend(self.loop.time()):
            record = carrier.record(self._worker, received, sent, self.loop.time())
            self._recent.add(record)
            self._access_log.write(record, life.opened_at_s)

    def _notes(self, reason: CloseReason | None) -> bool:
        """Whether what ended for that reason is recorded anywhere."""
        return self._access_log.wanted or remarkable(reason)

    def wire(self, channel: Channel) -> Wire:
        """For whoever speaks over ``channel``, and becomes its owner at once."""
        return Wire(self.poller, self.buffers, self.turn, channel, None)

    def serving(self, session: HTTPSession) -> None:
        """A connection of layer 7 has begun."""
        if self._draining:
            session.allow_one()
        if self._looking is None:
            self._looking = self.loop.call_later(LOOKS_EACH_S, self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        self._looking = None
        sessions = [carrier.http for carrier in self.live if carrier.http is not None]
        for session in sessions:
            session.look_for_quiet()
        if sessions:
            self._looking = self.loop.call_later(LOOKS_EACH_S, self._look_for_quiet)

    def request_ended(self, session: HTTPSession, exchange: Exchange, now_s: float) -> None:
        """Count a request, and log it. ``now_s`` is of the event loop's clock."""
        reason = str(exchange.reason)
        took_s = now_s - exchange.started_s
        self.telemetry.requested(session.life.service, exchange.source_text, exchange.status, reason, took_s)
        if self.audit.wanted:
            self.audit.request_ended(session, exchange)
        if self._notes(exchange.reason):
            record = recorded(self._worker, session, exchange, now_s)
            self._recent.add(record)
            self._access_log.write(record, exchange.opened_at_s, exchange)

    def request_refused(self, session: HTTPSession, status: int, what: str) -> None:
        """A request that no exchange was made for."""
        self.telemetry.requested(session.life.service, session.source_text, status, CloseReason.BAD_REQUEST.value, 0.0)
        wall_s = time.time()
        record = refused(self._worker, session, status, what, wall_s)
        self._recent.add(record)
        self._access_log.write(record, wall_s)

    def drain(self) -> None:
        """The worker stops: connections of layer 7 take no more requests, and end with the last one."""
        self._draining = True
        for carrier in self.live:
            if carrier.http is not None:
                carrier.http.drain()
        self.pools.close_idle()

    def apply(self, update: Update) -> Applied:
        """Put ``update`` in force for new and for live connections."""
        changed, removed, problems = self.routes.apply(update)
        self.audit.generation = update.generation
        if update.mesh is not None:
            self.alone_since_s = None
            self._access_log.layout = update.mesh.access_log
        ended = [one for name in changed for one in self._re_authorise(name)]
        revoked = sum(one.number for one in ended)
        for name in removed:
            ended += self._end_service(name)
            self.pools.keep(name, ())
        self.telemetry.policy_closed += revoked
        for problem in problems:
            logger.error("update %d: %s: %s", update.generation, problem.service or "mesh", problem.message)
        return Applied(update.generation, tuple(problems), revoked, tuple(ended))

    def _re_authorise(self, name: ServiceName) -> Iterator[Ended]:
        state = self.routes.state(name)
        if state is None:
            return
        self.pools.keep(name, state.targets.values())
        for source in self.live.sources(name):
            identity, peer = source
            decision = None if isinstance(identity, MeshGateway) else state.policy.authorize(identity, peer)
            why = decision.sentence if isinstance(decision, Refusal) else _withdrawn(state.service, peer)
            revoked = 0
            of_askers: dict[str, int] = {}
            for carrier in self.live.of(name, source):
                if carrier.http is not None:
                    for asker in carrier.http.reconsider():
                        of_askers[asker] = of_askers.get(asker, 0) + 1
                elif why:
                    carrier.close(CloseReason.REVOKED, why)
                    revoked += 1
                elif state.service.http is not None:
                    # What it carries is seen by nobody who decides about requests, or says who makes them.
                    carrier.close(CloseReason.REVOKED, f"{name} is carried request by request from now on")
                    revoked += 1
            if revoked:
                of_askers[text_of(source)] = of_askers.get(text_of(source), 0) + revoked
            for asker, number in of_askers.items():
                yield Ended(str(name), asker, CloseReason.REVOKED.value, number)

    def _end_service(self, name: ServiceName) -> Iterator[Ended]:
        for source in self.live.sources(name):
            carriers = self.live.of(name, source)
            for carrier in carriers:
                carrier.close(CloseReason.UNLINKED, f"{name} is no longer linked to this gateway")
            yield Ended(str(name), text_of(source), CloseReason.UNLINKED.value, len(carriers))

    def counters(self) -> Counters:
        now_s = self.loop.time()
        return self.telemetry.counters(
            ((carrier.life.service, carrier.source_text, *carrier.look(now_s)) for carrier in self.live),
            len(self.pending),
            access_log_lines_dropped=self._access_log.dropped,
            log_lines_dropped=logs.dropped(),
            audit_log_lines_dropped=self.audit.dropped,
            open_files=self._open_files.count() if self._open_files is not None else 0,
            most_files=self._open_files.most() if self._open_files is not None else 0,
        )

    def page(self, query: Query) -> ConnectionPage:
        carriers, more = self.live.after(query.after, query.limit)
        now_s = self.loop.time()
        return ConnectionPage(query.id, tuple(carrier.describe(now_s) for carrier in carriers), more)

    def kill(self, wanted: Kill) -> Killed:
        """End what an operator wants ended."""
        now_s = self.loop.time()
        killed: list[Connection] = []
        for carrier in self.live:
            session = carrier.http
            if _is_meant(carrier, wanted, (carrier.source_text, carrier.life.spiffe_id)):
                killed.append(carrier.describe(now_s))
                carrier.close(CloseReason.KILLED, wanted.detail)
            elif wanted.source and session is not None and _is_meant(carrier, wanted, session.asked_for()):
                # A mesh gateway's connection: others ask on it, too.
                killed.append(msgspec.structs.replace(carrier.describe(now_s), caller=wanted.source))
                session.end_requests_of(wanted.source, wanted.detail)
        return Killed(wanted.id, tuple(killed))

    def recall(self, asked: Recall) -> Recollection:
        state = self.routes.state(asked.service) if asked.service is not None else None
        sets = [target.endpoints for target in state.targets.values()] if state is not None else []
        left_out = dict.fromkeys(str(endpoint) for one in sets for endpoint in one.left_out())
        return Recollection(asked.id, self._recent.matching(asked), tuple(left_out))

    async def drained(self) -> None:
        """Return when no connection is left."""
        await self._idle.wait()

    def end_all(self, reason: CloseReason, detail: str) -> None:
        for carrier in self.live:
            carrier.close(reason, detail)

    def end_spread(self, window_s: float, reason: CloseReason, detail: str) -> None:
        """End what is live now one by one, evenly over ``window_s`` and in random order: clients that come back do
        not come back together."""
        carriers = list(self.live)
        random.shuffle(carriers)
        for number, carrier in enumerate(carriers, 1):
            self.loop.call_later(window_s * number / len(carriers), carrier.close, reason, detail)


def _withdrawn(service: Service, peer: str) -> str:
    """Why callers of ``peer`` may no longer come, whatever intentions say; empty when they may. A name of a subset is
    no such matter: it says where connections go, not who may have them."""
    if not peer or any(one.peer == peer for one in service.server_names):
        return ""
    return f"{service.name} is no longer exported to peer {peer}, or its protocol is no longer tcp"


def _is_meant(carrier: Carrier, wanted: Kill, sources: Collection[str]) -> bool:
    life = carrier.life
    asked = (
        (wanted.number, (life.number,)),
        (wanted.service, (life.service,)),
        (wanted.source, sources),
    )
    return any(value for value, _ in asked) and all(value in found for value, found in asked if value)


def _local_address(client: socket.socket) -> str:
    try:
        return printed(client.getsockname())
    except OSError:
        return ""
