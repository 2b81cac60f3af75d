"""One request and its response: decided, sent on, answered, logged.

::

    seeking  -> asked     a connection to the external service has taken the request
    asked    -> answering the response, or 101, has begun
    any      -> over      complete, answered by the gateway itself, or cut

Nothing is buffered but what was already read when a pause was asked for. Whatever ends an exchange unfinished resets
what has begun: a response that was cut must not look complete.
"""

from __future__ import annotations

import asyncio
import enum
import time
from math import inf
from typing import TYPE_CHECKING

from proxy.errors import UpstreamError
from proxy.http import replies
from proxy.http.content import is_grpc, is_stream
from proxy.http.errors import BadRequest
from proxy.http.forward import new_request_id, response_for
from proxy.http.hash_key import hash_key
from proxy.http.message import Data, Headers, ResponseHead, Version
from proxy.http.nobody import NOBODY
from proxy.http.policy.normalization import Elsewhere
from proxy.http.policy.tokens import Accepted
from proxy.http.reach import Search, take
from proxy.http.replies import Reply
from proxy.http.request_life import RequestLife
from proxy.http.retry import may_repeat, repeatable
from proxy.http.streams import Incoming, Outgoing
from proxy.http.token_life import TokenLife
from proxy.model import CloseReason, Endpoint
from proxy.policy.intentions import Permit, Refusal
from proxy.sockets.timers import Timer

if TYPE_CHECKING:
    from proxy.http.pool import Member
    from proxy.http.session import HTTPSession
    from proxy.routes import Route
    from proxy.upstream.balance import EndpointSet

_OF_THE_CLIENT = frozenset({CloseReason.CLIENT_RESET, CloseReason.CLIENT_EOF})
_OF_THE_SERVICE = frozenset({CloseReason.UPSTREAM_RESET, CloseReason.BAD_RESPONSE})
_MOST_REPEATS = 2
_MOST_REPLAYED = 16 * 1024
"""Bytes of a body that are kept until the response begins: a call of gRPC that was not looked at is made again."""


class Phase(enum.IntEnum):
    SEEKING = 0
    ASKED = 1
    ANSWERING = 2
    OVER = 3


# Looking a member up in its class takes longer than a call of a method, and a request does it a dozen times.
_SEEKING, _ASKED, _ANSWERING, _OVER = Phase
_COMPLETED = CloseReason.COMPLETED


class Exchange(RequestLife):
    """Hears of its client as ``IncomingEvents``, of the external service as ``OutgoingEvents``."""

    __slots__ = (
        "_asked_at_s",
        "_cookies",
        "_endpoints",
        "_held",
        "_incoming",
        "_informed",
        "_lasts",
        "_member",
        "_outgoing",
        "_permit",
        "_plane",
        "_repeats",
        "_replay",
        "_replayed",
        "_request_ended",
        "_response_ended",
        "_route",
        "_search",
        "_session",
        "_timer",
        "_token_life",
        "_trailers",
        "_upgraded",
        "_was_reused",
        "moved",
        "phase",
        "quiet",
    )

    def __init__(self, session: HTTPSession, incoming: Incoming) -> None:
        self._session = session
        self._plane = session.plane
        self._incoming: Incoming = incoming
        super().__init__(incoming.head, wall_s=time.time(), monotonic_s=self._plane.loop.time())
        self.phase = _SEEKING
        self.moved = False
        """A byte, or an end, in either direction since this was looked at."""
        self.quiet = 0
        self._asked_at_s = 0.0
        self._permit: Permit | None = None
        self._route: Route | None = None
        """Where it was sent."""
        self._search: Search | None = None
        self._member: Member | None = None
        self._was_reused = False
        self._outgoing: Outgoing | None = None
        self._endpoints: EndpointSet | None = None
        self._held: list[bytes] = []
        """Of the body: what had been read before there was a connection to send it on."""
        self._replay: list[bytes] | None = []
        """What was sent of the body so far; ``None`` when that is too much, or the response has begun."""
        self._replayed = 0
        self._trailers: Headers = []
        self._request_ended = False
        self._response_ended = False
        self._informed = False
        self._upgraded = False
        self._cookies: Headers = []
        """That the response sets."""
        self._repeats = 0
        self._timer: Timer | asyncio.TimerHandle | None = None
        """Of the time that the response has."""
        self._lasts = is_grpc(incoming.head)
        """It is a stream, as far as is known."""
        self._token_life: TokenLife | None = None

    # --- deciding -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Decide, and look for a connection. The answer may have been given when this returns."""
        session, head = self._session, self.head
        if head.length == 0:
            self._request_ended = True
        route = session.current_route()
        if route is None:
            self._reply(replies.UNLINKED, CloseReason.UNLINKED, "the service is no longer linked to this gateway")
            return
        try:
            asked = session.prepared(head)
        except BadRequest as error:
            self._reply(Reply(error.status, str(error)), CloseReason.BAD_REQUEST, str(error))
            return
        except Elsewhere as there:
            self._reply(Reply(307, "", headers=((b"location", there.target),)), CloseReason.REDIRECTED, str(there))
            return
        self.forwarded = asked
        for name, value in head.headers:
            if name == b"x-request-id":
                self.request_id = value
        decision = self.decision = session.decide(route, self, asked)
        if isinstance(decision, Refusal):
            if decision.unknown_keys:
                self._plane.keys_wanted.update(decision.unknown_keys)
            self._reply(replies.NO_TOKEN if decision.token else replies.DENIED, decision.reason, decision.sentence)
            return
        if too_old := self._plane.too_old():
            self._reply(replies.DENIED, CloseReason.STALE_STATE, too_old)
            return
        self._permit = decision
        self._plane.audit.request_allowed(session, self, decision)
        if decision.tokens is not None:
            self._watch_token(decision.tokens)
        if not self._request_ended:
            self._incoming.pause()
        else:
            self._limit_time(route)
        self._seek(route)

    def reconsider(self, route: Route) -> bool:
        """Policy has changed. :returns: whether that has ended it."""
        if self.phase is _OVER or self.forwarded is None:
            return False
        decision = self._session.decide(route, self, self.forwarded)
        if not isinstance(decision, Refusal):
            self._watch_token(decision.tokens)
            return False
        self.decision = decision
        self.fail(replies.DENIED, CloseReason.REVOKED, decision.sentence)
        return True

    # --- reaching the external service ------------------------------------------------------------------------

    def _seek(self, route: Route, *, fresh: bool = False, avoided: Endpoint | None = None) -> None:
        assert self._permit is not None
        assert self.forwarded is not None
        target = route.target
        self._route = route
        self._endpoints = target.endpoints
        endpoints, key = target.endpoints, ""
        if endpoints.hashes:
            policies = endpoints.balance.hash_policies
            key, self._cookies = hash_key(policies, self._session.life.client_ip, self.forwarded)
        may_be_repeated = repeatable(self.forwarded)
        chosen = endpoints.first(key)
        if chosen is not None and not (fresh or avoided or target.unusable):
            member = take(self._plane, route.state, target, chosen, repeatable=may_be_repeated)
            if member is not None:
                self.on_reached(member)
                return
        self._search = search = Search(self._plane, route.state, target, self._permit, self)
        others = endpoints.others(chosen, key) if chosen is not None else iter(())
        search.start(chosen, others, repeatable=may_be_repeated, fresh=fresh, avoided=avoided)

    def on_reached(self, member: Member) -> None:
        assert self.forwarded is not None
        assert self._endpoints is not None
        assert self._route is not None
        assert self._permit is not None
        self._search = None
        self._member = member
        self._was_reused = member.served > 0
        self.endpoint = member.endpoint
        self._endpoints.opened(member.endpoint)
        self.phase = _ASKED
        if not self._asked_at_s:
            self._asked_at_s = self._plane.loop.time()
        if not self.request_id:
            self.request_id = new_request_id()
        head = self._session.for_upstream(self._route, self.forwarded, self._permit, self.request_id, member.endpoint)
        held, self._held = self._held, []
        end = self._request_ended and not held and not self._trailers
        self._outgoing = outgoing = member.request(head, self, end=end)
        room = True
        for data in held:
            self._remember(data)
            room = outgoing.send(data)
        if not self._request_ended:
            if room:
                self._incoming.resume()
        elif not end:
            outgoing.finish(self._trailers)

    def on_unreachable(self, error: UpstreamError) -> None:
        self._search = None
        reply = replies.unreachable(error.reason)
        self._reply(reply, error.reason, str(error))

    def on_broken(self, error: BaseException) -> None:
        self._search = None
        self._session.report(error)
        self.fail(replies.INTERNAL, CloseReason.INTERNAL, f"{type(error).__name__}: {error}")

    # --- the client -------------------------------------------------------------------------------------------

    def on_request_data(self, data: Data) -> None:
        self.moved = True
        self.bytes_received += len(data)
        if self.phase is _OVER:
            return
        if self._outgoing is None:
            self._held.append(bytes(data))
        else:
            self._remember(data)
            if not self._outgoing.send(data):
                self._incoming.pause()

    def _remember(self, data: Data) -> None:
        if self._replay is None:
            return
        self._replayed += len(data)
        if self._replayed > _MOST_REPLAYED:
            self._replay = None
        else:
            self._replay.append(bytes(data))

    def on_request_end(self, trailers: Headers) -> None:
        if self._request_ended or self.phase is _OVER:
            return
        self.moved = self._request_ended = True
        if trailers:
            # Of HTTP/1.1 they go no further (decision 061).
            over_two = self.head.version is Version.HTTP_2
            trailers = self._session.trailers_for_upstream(trailers) if over_two else []
        self._trailers = trailers
        if self._outgoing is not None:
            self._outgoing.finish(trailers)
        if self._upgraded:
            self._end_of_one_direction()
        elif self.phase is not _ANSWERING and (route := self._session.current_route()) is not None:
            self._limit_time(route)

    def on_request_lost(self, reason: CloseReason, detail: str) -> None:
        if self.phase is _OVER:
            return
        if reason in _OF_THE_CLIENT:
            self.flags = "DC"
        self._drop_upstream()
        self._over(reason, detail)

    def on_client_room(self) -> None:
        self.moved = True
        if self._outgoing is not None and self.phase is not _OVER:
            self._outgoing.resume()

    # --- the external service ---------------------------------------------------------------------------------

    def on_informed(self, head: ResponseHead) -> None:
        self.moved = self._informed = True
        if self.phase is _ASKED:
            self._incoming.inform(head)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        if self.phase is not _ASKED:
            return
        self.moved = True
        self.phase = _ANSWERING
        self._replay = None
        self.upstream_ms = (self._plane.loop.time() - self._asked_at_s) * 1000
        self.status = head.status
        self._learn(failed=head.status >= 500)
        self._upgraded = head.status == 101
        if self._upgraded:
            self._request_ended = False  # the other protocol ends on its own
        if self._upgraded or is_stream(self.head, head):
            self._end_of_timeout()
            self._lasts = True
            if self._token_life is not None:
                self._token_life.lasts()
        self.response = response = response_for(head, self._cookies)
        self._incoming.respond(response, end=end)
        if end:
            self._complete()

    def on_response_data(self, data: Data) -> None:
        if self.phase is not _ANSWERING:
            return
        self.moved = True
        self.bytes_sent += len(data)
        if not self._incoming.send(data) and self._outgoing is not None:
            self._outgoing.pause()

    def on_response_end(self, trailers: Headers) -> None:
        if self.phase is not _ANSWERING:
            return
        self.moved = True
        self._incoming.finish(trailers)
        if self._upgraded:
            self._response_ended = True
            self._end_of_one_direction()
        else:
            self._complete()

    def on_response_lost(self, error: UpstreamError, *, unprocessed: bool) -> None:
        if self.phase is _OVER:
            return
        if error.reason is CloseReason.INTERNAL:
            self._session.report(True)
        former, begun = self.endpoint, self.phase is _ANSWERING
        if not begun and not unprocessed and not self._was_reused and error.reason in _OF_THE_SERVICE:
            self._learn(failed=True)
        self._outgoing = None
        self._give_back()
        if not begun and self._repeats < _MOST_REPEATS and self._may_repeat(error, unprocessed=unprocessed):
            route = self._session.current_route()
            if route is not None:
                self._repeats += 1
                self.phase = _SEEKING
                if not self._request_ended:
                    self._incoming.pause()
                self._held, self._replay, self._replayed = self._replay or [], [], 0
                self._seek(route, fresh=not unprocessed, avoided=former if unprocessed else None)
                return
        self.fail(replies.broken(error.reason), error.reason, str(error))

    def on_upstream_room(self) -> None:
        self.moved = True
        if self.phase is not _OVER and not self._request_ended:
            self._incoming.resume()

    def _may_repeat(self, error: UpstreamError, *, unprocessed: bool) -> bool:
        """The client was told nothing, all that was sent is at hand, and doing it twice is the same as once."""
        if self._informed or self._replay is None:
            return False
        assert self.forwarded is not None
        return unprocessed or may_repeat(self.forwarded, error, reused=self._was_reused)

    def _learn(self, *, failed: bool) -> None:
        """What the endpoint has made of the request."""
        endpoints, endpoint, route = self._endpoints, self.endpoint, self._route
        if endpoints is not None and endpoints.learns_from_answers and endpoint is not None and route is not None:
            ejected = endpoints.answered(endpoint, failed=failed)
            if ejected:
                self._plane.dials_failed(str(route.state.service.name), (), ejected)

    # --- time -------------------------------------------------------------------------------------------------

    def _limit_time(self, route: Route) -> None:
        http = route.state.service.http
        if http is not None and http.request_timeout_s > 0 and self._timer is None:
            limit_s = http.request_timeout_s
            self._timer = self._plane.poller.timers.call_later(limit_s, self._timed_out, limit_s)

    def _timed_out(self, limit_s: float) -> None:
        self._timer = None
        if self.phase is _ASKED:
            self._learn(failed=True)
        with self._plane.turn.one():
            self.fail(
                replies.TIMEOUT,
                CloseReason.REQUEST_TIMEOUT,
                f"no complete response within {limit_s:g} s (RequestTimeout)",
            )

    def _end_of_timeout(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch_token(self, tokens: Accepted | None) -> None:
        """``tokens`` let it in."""
        if self._token_life is not None:
            self._token_life.stop()
            self._token_life = None
        if tokens is not None and tokens.valid_until_s < inf:
            timers = self._plane.poller.timers
            self._token_life = TokenLife(timers, tokens.valid_until_s, self._token_over, lasting=self._lasts)

    def _token_over(self) -> None:
        with self._plane.turn.one():
            self.fail(replies.NO_TOKEN, CloseReason.TOKEN_EXPIRED, "the token that let it in has expired")

    # --- the end ----------------------------------------------------------------------------------------------

    def fail(self, reply: Reply, reason: CloseReason, detail: str) -> None:
        """End it now: with ``reply`` if nothing was answered yet, else with a reset."""
        if self.phase is _OVER:
            return
        if self.phase is not _ANSWERING:
            self._reply(reply, reason, detail)
            return
        self.flags = reply.flags
        self._drop_upstream()
        self._incoming.reset(reason, detail)
        self._over(reason, detail)

    def _reply(self, reply: Reply, reason: CloseReason, detail: str) -> None:
        self._drop_upstream()
        head, body = replies.response(reply, self.head)
        self.status, self.flags, self.response = head.status, reply.flags, head
        self.bytes_sent = len(body)
        self._incoming.respond(head, end=not body)
        if body:
            self._incoming.send(body)
            self._incoming.finish([])
        self._over(reason, detail)

    def _end_of_one_direction(self) -> None:
        if self._request_ended and self._response_ended:
            self._complete()

    def _complete(self) -> None:
        self._outgoing = None
        self._over(_COMPLETED, "")

    def _drop_upstream(self) -> None:
        if self._search is not None:
            self._search.cancel()
            self._search = None
        outgoing, self._outgoing = self._outgoing, None
        if outgoing is not None:
            outgoing.reset()

    def _give_back(self) -> None:
        if self._member is not None and self._endpoints is not None:
            self._endpoints.closed(self._member.endpoint)
        self._member = None

    def _over(self, reason: CloseReason, detail: str) -> None:
        self.phase = _OVER
        self.reason, self.detail = reason, detail
        self._end_of_timeout()
        if self._token_life is not None:
            self._token_life.stop()
        self._give_back()
        self._held.clear()
        # It points back here: without this the cycle collector would have to find every request.
        self._incoming = NOBODY
        self._session.ended(self)
