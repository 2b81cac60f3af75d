"""What the gateway's own machine lacks is no fault of an endpoint."""

from __future__ import annotations

import errno
import os

import pytest

from proxy.errors import UpstreamError
from proxy.model import Balance, CloseReason, Endpoint
from proxy.sockets.tcp_connect import failed
from proxy.upstream.balance import EndpointSet
from proxy.upstream.ejection import FAILURES
from proxy.upstream.shortage import QUIET_S, ShortageError, ShortageLog, shortage
from tests.support.clock import Clock

OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
THEIRS = (errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET)
DB = Endpoint("10.0.0.9", 5432)
OTHER = Endpoint("10.0.0.10", 5432)


def error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def ejected(failure: UpstreamError) -> int:
    """How often an endpoint is left out for more such failures than it takes."""
    endpoints = EndpointSet((DB, OTHER), Balance())
    return sum(endpoints.dialled(None, {DB: failure}) for _ in range(2 * FAILURES))


@pytest.mark.parametrize("code", OURS, ids=errno.errorcode.__getitem__)
def test_a_shortage_leaves_no_endpoint_out_and_says_what_is_lacking(code: int) -> None:
    failure = failed(error(code))
    assert failure.reason is CloseReason.EXHAUSTED
    assert str(failure).startswith(f"{os.strerror(code)}: ")
    assert ejected(failure) == 0


@pytest.mark.parametrize("code", THEIRS, ids=errno.errorcode.__getitem__)
def test_what_an_endpoint_does_leaves_it_out(code: int) -> None:
    assert shortage(error(code)) is None
    assert failed(error(code)).reason is CloseReason.DIAL_FAILED
    assert ejected(failed(error(code))) == 1


def test_many_shortages_are_one_line_and_a_number(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log, failure = ShortageLog(clock), failed(error(errno.EMFILE))
    assert isinstance(failure, ShortageError)
    for _ in range(50):
        log.note("db", failure)
    clock.now_s += QUIET_S
    log.note("db", failure)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("cannot dial db: Too many open files: the worker has no file descriptor left")
    assert second.endswith("(and 49 more since this was said last)")
