"""A gRPC client and server that know nothing of the mesh: every kind of call, its end, and who decides about it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.http.conftest import CALLS, HTTPStage
from tests.support.calls import SERVICE, TRAILER
from tests.support.eventually import SCALE, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DEADLINE_S = 20.0 * SCALE
_LARGE = 3_000_000


@pytest_asyncio.fixture(loop_scope="session")
async def channel(http_stage: HTTPStage) -> AsyncIterator[grpc.aio.Channel]:
    """To the sidecar."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{http_stage.ports[CALLS]}") as channel:
        yield channel


def unary(channel: grpc.aio.Channel, method: str) -> Any:
    return channel.unary_unary(f"/{SERVICE}/{method}")


def talk(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(f"/{SERVICE}/Talk")()


async def test_a_call_with_its_trailers(channel: grpc.aio.Channel) -> None:
    call = unary(channel, "Echo")(b"hello", timeout=_DEADLINE_S)
    assert await call == b"hello"
    assert (TRAILER, "yes") in tuple(await call.trailing_metadata())
    assert await call.code() is grpc.StatusCode.OK


async def test_a_message_larger_than_any_window(channel: grpc.aio.Channel) -> None:
    message = bytes(range(256)) * (_LARGE // 256)
    assert await unary(channel, "Echo")(message, timeout=_DEADLINE_S) == message


async def test_many_calls_at_a_time(channel: grpc.aio.Channel) -> None:
    messages = [b"%d" % number for number in range(200)]
    answers = await asyncio.gather(*(unary(channel, "Echo")(one, timeout=_DEADLINE_S) for one in messages))
    assert answers == messages


async def test_a_stream_of_answers(channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(f"/{SERVICE}/Repeat")(b"1000:" + b"x" * 500, timeout=_DEADLINE_S)
    answers = [answer async for answer in call]
    assert answers == [b"%d %s" % (number, b"x" * 500) for number in range(1_000)]


async def test_a_stream_of_messages(channel: grpc.aio.Channel) -> None:
    messages = [b"%d" % number for number in range(1_000)]
    call = channel.stream_unary(f"/{SERVICE}/Collect")(iter(messages), timeout=_DEADLINE_S)
    assert await call == b",".join(messages)


async def test_both_ways_in_turns(channel: grpc.aio.Channel) -> None:
    call = talk(channel)
    for number in range(50):
        await call.write(b"%d" % number)
        async with asyncio.timeout(_DEADLINE_S):
            assert await call.read() == b"heard %d" % number
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_the_status_of_a_failed_call(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "Fail")("wrong: 50 % sure, \u20ac".encode(), timeout=_DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "wrong: 50 % sure, \u20ac"
    assert (TRAILER, "no") in tuple(caught.value.trailing_metadata())


async def test_an_unknown_method(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "Nothing")(b"", timeout=_DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_is_the_servers_too(http_stage: HTTPStage, channel: grpc.aio.Channel) -> None:
    await unary(channel, "Echo")(b"", timeout=_DEADLINE_S)
    assert 0 < http_stage.calls.deadlines_s[-1] < _DEADLINE_S + 5  # grpc rounds up
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "Wait")(b"", timeout=0.5)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: http_stage.calls.waiting == 0, what="the server has given up as well")


async def test_a_call_that_is_taken_back_ends_for_the_server(http_stage: HTTPStage, channel: grpc.aio.Channel) -> None:
    call = unary(channel, "Wait")(b"")
    await eventually(lambda: http_stage.calls.waiting == 1, what="the call has arrived")
    call.cancel()
    await eventually(lambda: http_stage.calls.waiting == 0, what="the server knows that nobody waits")
    assert await unary(channel, "Echo")(b"next", timeout=_DEADLINE_S) == b"next"


@pytest_asyncio.fixture(loop_scope="session")
async def policy(http_stage: HTTPStage) -> AsyncIterator[HTTPStage]:
    """The stage, allowed again afterwards."""
    yield http_stage
    await http_stage.decide(CALLS, "allow")


async def test_a_denied_call_is_told_so(policy: HTTPStage, channel: grpc.aio.Channel) -> None:
    await policy.decide(CALLS, "deny")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await unary(channel, "Echo")(b"", timeout=_DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "RBAC" in (caught.value.details() or "")


async def test_a_live_stream_ends_with_its_permission(policy: HTTPStage, channel: grpc.aio.Channel) -> None:
    call = talk(channel)
    await call.write(b"still allowed")
    assert await call.read() == b"heard still allowed"
    await policy.decide(CALLS, "deny")
    async with asyncio.timeout(_DEADLINE_S):
        assert await call.code() is not grpc.StatusCode.OK
    await policy.decide(CALLS, "allow")
    assert await unary(channel, "Echo")(b"again", timeout=_DEADLINE_S) == b"again"


async def test_permissions_tell_methods_apart(policy: HTTPStage, channel: grpc.aio.Channel) -> None:
    """A method of gRPC is a path; a live stream goes on while a permission allows it."""
    call = talk(channel)
    await call.write(b"before")
    assert await call.read() == b"heard before"
    permissions = [
        {"Action": "allow", "HTTP": {"PathExact": f"/{SERVICE}/Talk"}},
        {"Action": "deny", "HTTP": {"PathPrefix": "/"}},
    ]
    sources = [{"Name": "http-client", "Permissions": permissions}]
    await policy.agent.write_config({"Kind": "service-intentions", "Name": CALLS, "Sources": sources})

    async def denied() -> bool:
        try:
            await unary(channel, "Echo")(b"", timeout=_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.PERMISSION_DENIED
        return False

    await eventually(denied, what="another method is denied")
    await call.write(b"after")
    async with asyncio.timeout(_DEADLINE_S):
        assert await call.read() == b"heard after"
    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
