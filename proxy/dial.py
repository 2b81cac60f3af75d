"""Reaching the external service. Nothing is dialled without a :class:`proxy.intentions.Permit`."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass

from proxy import handshake
from proxy.balance import EndpointSet
from proxy.channel import Buffers, Channel, TCPChannel, TLSChannel
from proxy.errors import UpstreamError
from proxy.intentions import Permit
from proxy.model import CloseReason, Endpoint, Keepalive
from proxy.steps import DeadlineExpired, Steps
from proxy.tls_context import UpstreamContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a connection may go, and how."""

    endpoints: EndpointSet
    connect_timeout_s: float
    """For each endpoint: TCP and TLS together."""
    tls: UpstreamContext | None = None
    unusable: str = ""
    """Why nothing may be dialled although there are endpoints: upstream TLS is asked for and cannot be had."""
    keepalive: Keepalive | None = None


async def dial(
    permit: Permit, target: Target, client_ip: str, steps: Steps, buffers: Buffers
) -> tuple[Channel, Endpoint]:
    """Connect to the best endpoint that answers.

    :raises UpstreamError: when none does; the text names each one that was tried.
    """
    assert isinstance(permit, Permit)
    if target.unusable:
        raise UpstreamError(CloseReason.UPSTREAM_TLS_FAILED, target.unusable)
    failures: list[str] = []
    reason = CloseReason.NO_ENDPOINTS
    for endpoint in target.endpoints.order(client_ip):
        try:
            channel = await _attempt(target, endpoint, steps, buffers)
        except UpstreamError as error:
            reason = error.reason
            failures.append(f"{describe(endpoint)}: {error}")
        else:
            return channel, endpoint
    raise UpstreamError(reason, "; ".join(failures) or "the service has no instance that could be dialled")


async def _attempt(target: Target, endpoint: Endpoint, steps: Steps, buffers: Buffers) -> Channel:
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    try:
        upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise UpstreamError(CloseReason.DIAL_FAILED, error.strerror or str(error)) from error
    try:
        steps.deadline(target.connect_timeout_s)
        await _connect(steps, upstream, endpoint)
        _set_options(upstream, target.keepalive)
        if target.tls is None:
            return TCPChannel(upstream, buffers)
        session = target.tls.connect()
        await handshake.connect(steps, upstream, session, buffers)
        return TLSChannel(upstream, session, buffers)
    except DeadlineExpired:
        steps.poller.close_socket(upstream)
        raise UpstreamError(CloseReason.DIAL_TIMEOUT, f"no connection within {target.connect_timeout_s:g} s") from None
    except OSError as error:
        steps.poller.close_socket(upstream)
        raise UpstreamError(CloseReason.DIAL_FAILED, error.strerror or str(error)) from error
    except BaseException:
        steps.poller.close_socket(upstream)
        raise
    finally:
        steps.no_deadline()


async def _connect(steps: Steps, upstream: socket.socket, endpoint: Endpoint) -> None:
    code = upstream.connect_ex((endpoint.address, endpoint.port))
    if code in (errno.EINPROGRESS, errno.EINTR):
        await steps.writable(upstream)
        code = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


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


def describe(endpoint: Endpoint) -> str:
    """``ip:port``, with the hostname it came from."""
    address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    text = f"{address}:{endpoint.port}"
    return f"{text} ({endpoint.hostname})" if endpoint.hostname else text
