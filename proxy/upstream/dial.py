"""Reaching the external service. Nothing is dialled without a :class:`proxy.policy.intentions.Permit`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass

from proxy.errors import UpstreamError
from proxy.model import CloseReason, Endpoint, Keepalive
from proxy.policy.intentions import Permit
from proxy.sockets.channel import Buffers, Channel, TCPChannel, TLSChannel
from proxy.sockets.steps import DeadlineExpired, Steps
from proxy.sockets.tcp_connect import Failures, connect, failed, race, timed_out
from proxy.tls import handshake
from proxy.tls.context import UpstreamContext
from proxy.upstream.balance import EndpointSet
from proxy.upstream.rivals import Rivals
from proxy.upstream.shortage import ShortageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a connection may go, and how."""

    endpoints: EndpointSet
    rivals: Rivals
    """Of the same endpoints."""
    connect_timeout_s: float
    """For each endpoint that is chosen, with its rivals: TCP and TLS together."""
    tls: UpstreamContext | None = None
    unusable: str = ""
    """Why nothing may be dialled although there are endpoints: upstream TLS is asked for and cannot be had."""
    keepalive: Keepalive | None = None


Report = Callable[[Failures, int], None]
"""Gets the attempts of one connection that failed, and how many endpoints are left out because of that."""


async def dial(
    permit: Permit, target: Target, client_ip: str, steps: Steps, buffers: Buffers, report: Report
) -> tuple[Channel, Endpoint]:
    """Connect to the best endpoint that answers.

    The addresses of a hostname are tried side by side; an IP address of the catalog is tried alone.

    :param report: is called when an attempt has failed, also when another one succeeds.
    :raises UpstreamError: when none does; the text names each one that was tried.
    """
    assert isinstance(permit, Permit)
    if target.unusable:
        raise UpstreamError(CloseReason.UPSTREAM_TLS_FAILED, target.unusable)
    failures: Failures = {}
    for chosen in target.endpoints.order(target.endpoints.key_of_address(client_ip)):
        # It may have failed as the rival of an earlier one.
        if chosen not in failures:
            opened = await attempt(permit, target, chosen, steps, buffers, failures)
            if opened is not None:
                learn(target, opened[1], failures, report)
                return opened
    learn(target, None, failures, report)
    if not failures:
        raise UpstreamError(CloseReason.NO_ENDPOINTS, "the service has no instance that could be dialled")
    newest = next(reversed(failures.values()))
    texts = (f"{endpoint}: {error}" for endpoint, error in failures.items())
    raise UpstreamError(newest.reason, "; ".join(texts))


def learn(target: Target, reached: Endpoint | None, failures: Failures, report: Report) -> None:
    """The balancer, and whoever counts, hear how dialling for one connection went."""
    ejected = target.endpoints.dialled(reached, failures)
    if failures:
        report(failures, ejected)


async def attempt(
    permit: Permit, target: Target, chosen: Endpoint, steps: Steps, buffers: Buffers, failures: Failures
) -> tuple[Channel, Endpoint] | None:
    """Connect to ``chosen`` or one of its rivals, TCP and TLS, within the timeout; ``None`` when that has failed, and
    how is in ``failures`` then."""
    assert isinstance(permit, Permit)
    timeout_s = target.connect_timeout_s
    endpoint = chosen
    steps.deadline(timeout_s)
    try:
        if chosen.hostname:
            raced = await _race(target, chosen, steps, failures)
            if raced is None:
                return None
            upstream, endpoint = raced
        else:
            upstream = await connect(steps, chosen)
        return await _channel(target, upstream, steps, buffers), endpoint
    except DeadlineExpired:
        failures[endpoint] = timed_out(timeout_s)
    except OSError as broken:
        failures[endpoint] = failed(broken)
    except UpstreamError as error:
        failures[endpoint] = error
    finally:
        steps.no_deadline()
    return None


async def _race(
    target: Target, chosen: Endpoint, steps: Steps, failures: Failures
) -> tuple[socket.socket, Endpoint] | None:
    now_s = steps.poller.loop.time
    line = [endpoint for endpoint in target.rivals.line_up(chosen, now_s()) if endpoint not in failures]
    won = await race(steps, line, target.connect_timeout_s, failures)
    if won is not None and won[1] != line[0] and not isinstance(failures.get(line[0]), ShortageError):
        target.rivals.lost(line[0], now_s())
    return won


async def _channel(target: Target, upstream: socket.socket, steps: Steps, buffers: Buffers) -> Channel:
    """Make a channel of a connected socket, or close it."""
    try:
        _set_options(upstream, target.keepalive)
        if target.tls is None:
            return TCPChannel(upstream, buffers)
        session = target.tls.connect()
        await handshake.connect(steps, upstream, session, buffers)
        return TLSChannel(upstream, session, buffers)
    except BaseException:
        steps.poller.close_socket(upstream)
        raise


def _set_options(upstream: socket.socket, keepalive: Keepalive | None) -> None:
    upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive is None:
        return
    upstream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, keepalive.time_s),
        (socket.TCP_KEEPINTVL, keepalive.interval_s),
        (socket.TCP_KEEPCNT, keepalive.probes),
    ):
        if value:
            upstream.setsockopt(socket.IPPROTO_TCP, option, value)
