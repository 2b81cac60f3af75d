"""One client's connection to a service of layer 7: every request on it is decided, carried and logged for itself.

It lives as long as the client likes: policy, endpoints and settings are looked up anew for each request, since an
update replaces them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import TYPE_CHECKING

from proxy.http import replies
from proxy.http.caller import Caller
from proxy.http.exchange import Exchange, Phase
from proxy.http.forward import new_request_id, request_for, trailers_of_request
from proxy.http.message import Headers, RequestHead
from proxy.http.policy.normalization import acceptable, normalized
from proxy.http.policy.told import as_told
from proxy.http.protocol import open_server
from proxy.http.record import described
from proxy.http.streams import Incoming, IncomingEvents, ServerConnection
from proxy.messages import MOST_LIVE_REQUESTS, LiveRequest
from proxy.model import CloseReason, Endpoint
from proxy.policy.intentions import Decision, Permit, Refusal, describe
from proxy.sockets.timers import Timer

if TYPE_CHECKING:
    from proxy.carrier import Carrier
    from proxy.dataplane import DataPlane
    from proxy.routes import Route
    from proxy.sockets.channel import Channel

_QUIET_S = 300.0
"""An exchange in which nothing moves for so long is ended, as Envoy does (``stream_idle_timeout``), unless the service
has an idle timeout of its own."""
LOOKS_EACH_S = 15.0
"""How often somebody looks for these."""
_DRAINING = 0.9
"""Of the maximum lifetime: then the connection takes no more requests; at its end it is cut."""


class HTTPSession:
    """Between the carrier of a connection and the exchanges on it; hears of it as ``ServerEvents``."""

    def __init__(self, carrier: Carrier, caller: Caller, route: Route, channel: Channel) -> None:
        self.plane: DataPlane = carrier.plane
        self.life = carrier.life
        self.caller = caller
        self.requests = 0
        """Taken so far, those that were refused by the parser among them."""
        self._carrier = carrier
        self._service = route.state.service.name
        self._live: set[Exchange] = set()
        self._described: tuple[Decision | None, str] = (None, "")
        self._timers: list[Timer | asyncio.TimerHandle] = []
        self._idle_since_s = self.plane.loop.time()
        self._draining = False
        self._reason: tuple[CloseReason, str] | None = None
        self.source_text = caller.text
        self._wire = self.plane.wire(channel)
        self._connection: ServerConnection = open_server(self._wire, self, route.state.service)

    def start(self) -> None:
        service = self.plane.routes.state(self._service)
        if service is not None:
            self._limit_life(service.service.max_lifetime_s)
            self._watch_idleness(service.service.idle_timeout_s)
        self._connection.start()

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes from and to the client, heads among them."""
        return self._wire.bytes_received, self._wire.bytes_sent

    # --- requests -------------------------------------------------------------------------------------------

    def on_request(self, incoming: Incoming) -> IncomingEvents:
        self.requests += 1
        self._carrier.asked = True
        exchange = Exchange(self, incoming)
        exchange.source, exchange.source_text = self.caller.spiffe_id, self.source_text
        self._live.add(exchange)
        if self._draining:
            self._connection.drain()
        try:
            exchange.begin()
        except Exception as error:  # noqa: BLE001 - the supervisor of one request
            exchange.on_broken(error)
        return exchange

    def on_bad_request(self, status: int, what: str) -> None:
        self.requests += 1
        self._carrier.asked = True
        self.plane.request_refused(self, status, what)

    def current_route(self) -> Route | None:
        """Where its requests go now; ``None`` when the server name is not the service's any more."""
        route = self.plane.routes.lookup(self.life.server_name)
        return route if route is not None and route.state.service.name == self._service else None

    def prepared(self, head: RequestHead) -> RequestHead:
        """The request in the one form in which it is decided about and forwarded.

        :raises BadRequest: for one that has no such form.
        :raises Elsewhere: for one that the client has to make in another form.
        """
        mesh = self.plane.routes.mesh
        assert mesh is not None
        target = normalized(head.target, mesh.normalization)
        headers = acceptable(head.headers, mesh.normalization.underscores)
        if target is head.target and headers is head.headers:
            return head
        return dataclasses.replace(head, target=target, headers=headers)

    def decide(self, route: Route, exchange: Exchange, head: RequestHead) -> Decision:
        """``head``: as :meth:`prepared` made it."""
        policy = route.state.policy
        asker = self.caller.asker
        if asker is None:
            found = self.caller.asker_of(head.headers, policy)
            if isinstance(found, Refusal):
                return found
            asker = found
            exchange.source, exchange.source_text, exchange.peer = asker.spiffe_id, asker.text, asker.peer
        if policy.sees_what_is_added:
            mesh = self.plane.routes.mesh
            assert mesh is not None
            element = b"" if mesh.sanitize_client_cert_header else self.caller.certificate_element()
            if not exchange.request_id:
                exchange.request_id = new_request_id()
            head = as_told(head, client_certificate=element, request_id=exchange.request_id)
        return policy.authorize_request(asker.identity, asker.peer, head, exchange.opened_at_s)

    def for_upstream(
        self, route: Route, head: RequestHead, permit: Permit, request_id: bytes, endpoint: Endpoint
    ) -> RequestHead:
        """What ``endpoint`` is asked."""
        service, mesh = route.state.service, self.plane.routes.mesh
        assert mesh is not None
        rewritten = service.http is not None and service.http.rewrite_host and endpoint.hostname
        return request_for(
            head,
            authority=endpoint.hostname.encode() if rewritten else head.authority,
            client_certificate=b"" if mesh.sanitize_client_cert_header else self.caller.certificate_element(),
            request_id=request_id,
            scheme=b"http" if service.upstream_tls is None else b"https",
            tokens=permit.tokens,
            reserved=route.state.policy.reserved_headers,
        )

    def describe(self, decision: Decision) -> str:
        """:func:`proxy.policy.intentions.describe`, remembered: the same decision is made again and again."""
        if self._described[0] is not decision:
            self._described = decision, describe(decision)
        return self._described[1]

    def trailers_for_upstream(self, trailers: Headers) -> Headers:
        """Of a request; without what only the gateway may say, and what was decided by."""
        route = self.current_route()
        if route is None:
            return []
        policy = route.state.policy
        return trailers_of_request(trailers, policy.reserved_headers | policy.decisive_headers)

    def ended(self, exchange: Exchange) -> None:
        self._live.discard(exchange)
        self._idle_since_s = now_s = self.plane.loop.time()
        try:
            self.plane.request_ended(self, exchange, now_s)
        except Exception as error:  # noqa: BLE001 - what is wrong with a line of the log is no concern of a request
            self.report(error)

    def live_requests(self) -> tuple[LiveRequest, ...]:
        """Those under way, the oldest first."""
        oldest = sorted(self._live, key=lambda one: one.started_s)[:MOST_LIVE_REQUESTS]
        return tuple(described(self, exchange) for exchange in oldest)

    def asked_for(self) -> set[str]:
        """Of a mesh gateway: for whom it asks at the moment, as SPIFFE IDs and as ``peer:name``."""
        if self.caller.gateway is None:
            return set()
        return {name for one in self._live for name in (one.source, one.source_text)}

    def end_requests_of(self, source: str, detail: str) -> None:
        """End what an operator wants ended, and leave the others on this connection alone."""
        with self.plane.turn.one():
            for exchange in list(self._live):
                if source in (exchange.source, exchange.source_text):
                    exchange.fail(replies.DENIED, CloseReason.KILLED, detail)

    def report(self, error: BaseException | bool) -> None:
        self._carrier.report(error)

    # --- what ends requests -----------------------------------------------------------------------------------

    def reconsider(self) -> list[str]:
        """Policy has changed. :returns: who made the requests that this has ended, one by one."""
        route = self.current_route()
        if route is None or (route.state.service.http is None and self.caller.gateway is None):
            # Unlinked under this name, or carried whole from now on: what is under way may end, no more begins.
            self.drain()
            return []
        with self.plane.turn.one():
            ended = [one.source_text for one in list(self._live) if one.reconsider(route)]
        if self.caller.gateway is not None and route.state.policy.objection_to(self.caller.gateway):
            self.drain()
        return ended

    def drain(self) -> None:
        """Take no more requests; end after the last one."""
        self._draining = True
        with self.plane.turn.one():
            self._connection.drain()

    def allow_one(self) -> None:
        """The worker has been stopping since before this one was there: its first request is answered, no other."""
        self._draining = True

    def close(self, reason: CloseReason, detail: str) -> None:
        self._reason = self._reason or (reason, detail)
        with self.plane.turn.one():
            self._connection.close(reason, detail)

    def look_for_quiet(self) -> None:
        """End exchanges in which nothing moves."""
        route = self.current_route()
        most_s = (route.state.service.idle_timeout_s if route is not None else 0.0) or _QUIET_S
        for exchange in list(self._live):
            exchange.quiet = 0 if exchange.moved else exchange.quiet + 1
            exchange.moved = False
            if exchange.quiet * LOOKS_EACH_S >= most_s and exchange.phase is not Phase.OVER:
                with self.plane.turn.one():
                    detail = f"no byte in either direction for {most_s:g} s"
                    exchange.fail(replies.IDLE, CloseReason.IDLE, detail)

    def on_closed(self, reason: CloseReason, detail: str) -> None:
        for timer in self._timers:
            timer.cancel()
        reason, detail = self._reason or (reason, detail)
        self._carrier.carried(reason, detail)

    # --- time -------------------------------------------------------------------------------------------------

    def _limit_life(self, limit_s: float) -> None:
        if limit_s > 0:
            timers = self.plane.poller.timers
            drain_s = limit_s * random.uniform(_DRAINING, 1.0)
            detail = f"its lifetime, at most {limit_s:g} s, is over"
            self._timers.append(timers.call_later(drain_s, self.drain))
            self._timers.append(timers.call_later(limit_s, self.close, CloseReason.LIFETIME, detail))

    def _watch_idleness(self, timeout_s: float) -> None:
        if timeout_s > 0:
            self._timers.append(self.plane.poller.timers.call_later(timeout_s, self._check_idleness, timeout_s))

    def _check_idleness(self, timeout_s: float) -> None:
        self._timers.pop()
        now_s = self.plane.loop.time()
        left_s = timeout_s if self._live else self._idle_since_s + timeout_s - now_s
        if left_s <= 0:
            self._reason = CloseReason.IDLE, f"no request for {timeout_s:g} s"
            with self.plane.turn.one():
                self._connection.drain()
        else:
            self._timers.append(self.plane.poller.timers.call_later(left_s, self._check_idleness, timeout_s))
