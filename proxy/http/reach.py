"""From a request that may pass to a connection that takes it: one that is kept, or a new one.

Endpoints are tried in the balancer's order. Nothing is dialled without a :class:`proxy.policy.intentions.Permit`, and
nothing of the request has been sent while this lasts, so going on to another endpoint is always safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from proxy.errors import UpstreamError
from proxy.http.pool import Key, Member, ServicePool, key_of
from proxy.http.protocol import open_client
from proxy.model import CloseReason, Endpoint
from proxy.policy.intentions import Permit
from proxy.sockets.steps import Cancelled, Steps
from proxy.sockets.tcp_connect import Failures
from proxy.upstream.dial import Report, Target, attempt, learn

if TYPE_CHECKING:
    from proxy.dataplane import DataPlane
    from proxy.routes import ServiceState
    from proxy.sockets.channel import Channel


_MOST_CROWDED = 4


class Seeker(Protocol):
    """Who wants a connection."""

    def on_reached(self, member: Member) -> None:
        """It takes a request now."""

    def on_unreachable(self, error: UpstreamError) -> None: ...

    def on_broken(self, error: BaseException) -> None:
        """A bug while dialling."""


def take(plane: DataPlane, state: ServiceState, target: Target, chosen: Endpoint, *, repeatable: bool) -> Member | None:
    """A kept connection to ``chosen``, or to the address of its hostname that was quicker a moment ago."""
    first = target.rivals.line_up(chosen, plane.loop.time())[0] if chosen.hostname else chosen
    return plane.pools.of(state.service.name).take(target, first, repeatable=repeatable)


class Search:
    """One request's."""

    __slots__ = (
        "_crowded",
        "_dial",
        "_failures",
        "_line",
        "_permit",
        "_plane",
        "_pool",
        "_seeker",
        "_state",
        "_target",
        "over",
    )

    def __init__(self, plane: DataPlane, state: ServiceState, target: Target, permit: Permit, seeker: Seeker) -> None:
        assert isinstance(permit, Permit)
        self._plane = plane
        self._state = state
        self._target = target
        self._permit = permit
        self._seeker: Seeker | None = seeker
        self._pool = plane.pools.of(state.service.name)
        self._line: Iterator[Endpoint] = iter(())
        self._failures: Failures = {}
        self._dial: Dial | None = None
        self._crowded = 0
        """How often a new connection was full before it was this one's turn."""
        self.over = False

    def start(
        self,
        chosen: Endpoint | None,
        others: Iterator[Endpoint],
        *,
        repeatable: bool,
        fresh: bool = False,
        avoided: Endpoint | None = None,
    ) -> None:
        """``chosen`` and ``others`` are the balancer's order.

        :param repeatable: see :meth:`ServicePool.take`.
        :param fresh: only a new connection will do.
        :param avoided: is tried last.
        """
        if self._target.unusable:
            self._failed(UpstreamError(CloseReason.UPSTREAM_TLS_FAILED, self._target.unusable))
            return
        line = () if chosen is None else (chosen,)
        self._line = chain(line, others)
        if avoided is not None:
            in_order = list(self._line)
            self._line = iter([one for one in in_order if one != avoided] + [one for one in in_order if one == avoided])
        self._next(repeatable, fresh)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.over = True
        self._seeker = None
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.leave(self)

    def _next(self, repeatable: bool, fresh: bool) -> None:
        for chosen in self._line:
            if chosen not in self._failures:
                self._try(chosen, repeatable, fresh)
                return
        if not self._failures:
            self._failed(UpstreamError(CloseReason.NO_ENDPOINTS, "the service has no instance that could be dialled"))
            return
        newest = next(reversed(self._failures.values()))
        texts = (f"{endpoint}: {error}" for endpoint, error in self._failures.items())
        self._failed(UpstreamError(newest.reason, "; ".join(texts)))

    def _try(self, chosen: Endpoint, repeatable: bool, fresh: bool) -> None:
        target, pool = self._target, self._pool
        if not fresh:
            member = take(self._plane, self._state, target, chosen, repeatable=repeatable)
            if member is not None:
                self._found(member)
                return
        if not self._plane.pools.has_room():
            self._failed(UpstreamError(CloseReason.OVER_LIMIT, "this worker has no room for one more connection"))
            return
        key = key_of(target, chosen)
        dial = pool.dialling.get(key) if _is_shared(self._state) and not fresh else None
        if not isinstance(dial, Dial):
            dial = Dial(self._plane, self._state, target, chosen, pool, key)
            dial.join(self)
            self._dial = dial
            dial.start(self._permit)
        else:
            dial.join(self)
            self._dial = dial

    def dialled(self, chosen: Endpoint, member: Member | None, failures: Failures) -> None:
        """The dial that this waited for has ended; ``member`` is what it led to."""
        self._dial = None
        self._failures.update(failures)
        if member is None:
            self._next(False, False)
        elif member.connection.available:
            self._found(member)
        elif self._crowded < _MOST_CROWDED:
            self._crowded += 1
            self._try(chosen, False, False)
        else:
            self._failed(UpstreamError(CloseReason.OVER_LIMIT, f"{member.endpoint} allows no more requests at a time"))

    def broken(self, error: BaseException) -> None:
        self._dial = None
        seeker, self._seeker, self.over = self._seeker, None, True
        if seeker is not None:
            seeker.on_broken(error)

    def _found(self, member: Member) -> None:
        seeker, self._seeker, self.over = self._seeker, None, True
        if seeker is not None:
            seeker.on_reached(member)

    def _failed(self, error: UpstreamError) -> None:
        seeker, self._seeker, self.over = self._seeker, None, True
        if seeker is not None:
            seeker.on_unreachable(error)


class Dial:
    """One new connection, and who waits for it."""

    def __init__(
        self,
        plane: DataPlane,
        state: ServiceState,
        target: Target,
        chosen: Endpoint,
        pool: ServicePool,
        key: Key,
    ) -> None:
        self._plane = plane
        self._state = state
        self._target = target
        self._chosen = chosen
        self._pool = pool
        self._key = key
        self._waiting: list[Search] = []
        self._failures: Failures = {}
        self._opened: tuple[Channel, Endpoint] | None = None
        self._steps: Steps | None = None

    def start(self, permit: Permit) -> None:
        if _is_shared(self._state):
            self._pool.dialling.setdefault(self._key, self)
        self._plane.pools.began()
        self._steps = steps = Steps(self._plane.poller, self._settled)
        steps.run(self._run(permit, steps))

    def join(self, search: Search) -> None:
        self._waiting.append(search)

    def leave(self, search: Search) -> None:
        if search in self._waiting:
            self._waiting.remove(search)
            if not self._waiting and self._steps is not None:
                self._steps.cancel()

    async def _run(self, permit: Permit, steps: Steps) -> None:
        self._opened = await attempt(permit, self._target, self._chosen, steps, self._plane.buffers, self._failures)

    def _settled(self, error: BaseException | None) -> None:
        self._steps = None
        self._plane.pools.ended()
        if self._pool.dialling.get(self._key) is self:
            del self._pool.dialling[self._key]
        waiting, self._waiting = self._waiting, []
        if isinstance(error, Cancelled):
            return
        member = None
        if error is None:
            reached = self._opened[1] if self._opened is not None else None
            learn(self._target, reached, self._failures, self._report())
            try:
                member = self._joined(*self._opened) if self._opened is not None else None
            except Exception as mistake:  # noqa: BLE001 - the supervisor of what several requests wait for
                error = mistake
        for search in waiting:
            if search.over:
                continue
            if error is not None:
                search.broken(error)
            else:
                search.dialled(self._chosen, member, self._failures)

    def _joined(self, channel: Channel, endpoint: Endpoint) -> Member:
        plane, state = self._plane, self._state
        current = any(
            target.tls is self._target.tls and target.keepalive == self._target.keepalive
            for target in state.targets.values()
        )
        try:
            return self._pool.add(
                self._target,
                endpoint,
                lambda member: open_client(plane.wire(channel), member, state.service),
                current=current,
            )
        except BaseException:
            # Nobody else knows of this socket.
            plane.poller.forget(channel.fd)
            channel.close(reset=True)
            raise

    def _report(self) -> Report:
        plane, service = self._plane, str(self._state.service.name)
        return lambda failures, ejected: plane.dials_failed(service, failures.values(), ejected)


def _is_shared(state: ServiceState) -> bool:
    """Whether one connection will carry the requests of many, as far as is known before it is there."""
    return state.service.protocol in ("http2", "grpc")
