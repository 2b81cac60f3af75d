"""Connecting TCP to an external service: to one address, or to the first of several that answers.

Nothing is sent here and nothing is read: a connection that is given up has carried no byte of the client.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence

from proxy.errors import UpstreamError
from proxy.model import CloseReason, Endpoint
from proxy.sockets.steps import DeadlineExpired, Steps
from proxy.upstream.shortage import shortage

ATTEMPT_DELAY_S = 0.25
"""Connection Attempt Delay, RFC 8305 section 8."""

Failures = dict[Endpoint, UpstreamError]
"""How each endpoint that was tried for one connection failed."""


async def connect(steps: Steps, endpoint: Endpoint) -> socket.socket:
    """Connect to one address. :raises OSError: when that fails."""
    upstream = _socket(endpoint)
    try:
        if _begin(upstream, endpoint):
            await steps.writable(upstream)
            _raise_for(upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except BaseException:
        steps.poller.close_socket(upstream)
        raise
    return upstream


async def race(
    steps: Steps, line: Sequence[Endpoint], timeout_s: float, failures: Failures
) -> tuple[socket.socket, Endpoint] | None:
    """Connect to the first of ``line`` that answers; ``None`` when none does (RFC 8305 section 5).

    The next one is begun when the newest has failed, or has not connected within the delay; those before it go on.
    Those that lose are closed. How each failed is added to ``failures``.

    :param timeout_s: of the deadline that the caller has set, for the text.
    """
    waiting = list(reversed(line))
    racing: dict[socket.socket, Endpoint] = {}
    try:
        while waiting or racing:
            if waiting:
                _enter(racing, waiting.pop(), failures)
            if not racing:
                continue
            settled = await steps.first_writable(racing, ATTEMPT_DELAY_S if waiting else None)
            if settled is not None and (winner := _settle(steps, racing, settled, failures)) is not None:
                return settled, winner
    except DeadlineExpired:
        failures.update((endpoint, timed_out(timeout_s)) for endpoint in racing.values())
    finally:
        for loser in racing:
            steps.poller.close_socket(loser)
    return None


def failed(error: OSError) -> UpstreamError:
    return shortage(error) or UpstreamError(CloseReason.DIAL_FAILED, error.strerror or str(error))


def timed_out(timeout_s: float) -> UpstreamError:
    return UpstreamError(CloseReason.DIAL_TIMEOUT, f"no connection within {timeout_s:g} s")


def _enter(racing: dict[socket.socket, Endpoint], endpoint: Endpoint, failures: Failures) -> None:
    try:
        runner = _socket(endpoint)
    except OSError as error:
        failures[endpoint] = failed(error)
        return
    try:
        _begin(runner, endpoint)
    except OSError as error:
        runner.close()
        failures[endpoint] = failed(error)
    else:
        # One that connected at once is reported writable at once.
        racing[runner] = endpoint


def _settle(
    steps: Steps, racing: dict[socket.socket, Endpoint], settled: socket.socket, failures: Failures
) -> Endpoint | None:
    """Take ``settled`` out of the race; return its endpoint if it is connected."""
    endpoint = racing.pop(settled)
    try:
        _raise_for(settled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except OSError as error:
        steps.poller.close_socket(settled)
        failures[endpoint] = failed(error)
        return None
    return endpoint


def _socket(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


def _begin(upstream: socket.socket, endpoint: Endpoint) -> bool:
    """Say whether the answer has to be waited for. :raises OSError: when it failed at once."""
    code = upstream.connect_ex((endpoint.address, endpoint.port))
    if code in (errno.EINPROGRESS, errno.EINTR):
        return True
    _raise_for(code)
    return False


def _raise_for(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))
