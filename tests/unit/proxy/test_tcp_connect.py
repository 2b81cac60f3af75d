"""Connecting to one of several addresses, on loopback sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from proxy.errors import UpstreamError
from proxy.model import CloseReason, Endpoint
from proxy.sockets import tcp_connect
from proxy.sockets.poller import Poller
from proxy.sockets.steps import Cancelled, Steps
from proxy.sockets.tcp_connect import Failures, connect, race
from tests.support.eventually import eventually
from tests.support.ports import deaf, shared_port

PATIENCE_S = 20.0


def at(address: str, port: int) -> Endpoint:
    return Endpoint(address, port, "db.example")


class Running:
    """A coroutine on its own steps, and how it ended."""

    def __init__(self, poller: Poller, coroutine: Callable[[Steps], Awaitable[Any]]) -> None:
        self.ended: list[BaseException | None] = []
        self.result: Any = None
        self._coroutine = coroutine
        self.steps = Steps(poller, self.ended.append)
        self.steps.run(self._run())

    async def _run(self) -> None:
        self.result = await self._coroutine(self.steps)

    async def finished(self) -> Any:
        await eventually(lambda: self.ended, PATIENCE_S)
        if self.ended[0] is not None:
            raise self.ended[0]
        return self.result


Scene = Callable[[Poller], Awaitable[None]]


def play(scene: Scene) -> None:
    poller = Poller()

    async def staged() -> None:
        await scene(poller)

    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(staged())


@pytest.fixture
def served() -> Iterator[socket.socket]:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        yield listening


def accepted_within(listening: socket.socket, timeout_s: float) -> bool:
    listening.settimeout(timeout_s)
    try:
        listening.accept()[0].close()
    except TimeoutError:
        return False
    return True


def test_one_address_is_connected_or_says_why_not(served: socket.socket) -> None:
    async def scene(poller: Poller) -> None:
        good = await Running(poller, lambda steps: connect(steps, at("::1", served.getsockname()[1]))).finished()
        assert good.getpeername()[:2] == served.getsockname()[:2]
        poller.close_socket(good)
        port = shared_port(["127.0.0.1"])
        with pytest.raises(ConnectionRefusedError):
            await Running(poller, lambda steps: connect(steps, at("127.0.0.1", port))).finished()

    play(scene)


def test_a_second_address_is_tried_when_the_first_stays_silent_and_the_loser_is_closed() -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        failures: Failures = {}
        with deaf("127.0.0.1", port), socket.create_server(("::1", port), family=socket.AF_INET6) as served:
            line = (at("127.0.0.1", port), at("::1", port))
            began_s = poller.loop.time()
            running = Running(poller, lambda steps: race(steps, line, 5.0, failures))
            upstream, winner = await running.finished()
            assert winner is line[1]
            assert poller.loop.time() - began_s >= tcp_connect.ATTEMPT_DELAY_S
            assert not failures, "an address that was merely slower has not failed"
            assert open_sockets_to("127.0.0.1", port) == 2, "those that keep the port deaf, and no more"
            peer, _ = served.accept()
            with peer:
                poller.close_socket(upstream)
                peer.settimeout(PATIENCE_S)
                assert peer.recv(1) == b"", "nothing was sent before the end"

    play(scene)


def test_the_second_is_not_tried_when_the_first_connects(served: socket.socket) -> None:
    port = served.getsockname()[1]

    async def scene(poller: Poller) -> None:
        with socket.create_server(("127.0.0.1", port)) as unneeded:
            line = (at("::1", port), at("127.0.0.1", port))
            upstream, winner = await Running(poller, lambda steps: race(steps, line, 5.0, {})).finished()
            assert winner is line[0]
            assert not accepted_within(unneeded, 2 * tcp_connect.ATTEMPT_DELAY_S)
            poller.close_socket(upstream)

    play(scene)


def test_a_first_that_is_refused_is_followed_at_once(monkeypatch: pytest.MonkeyPatch, served: socket.socket) -> None:
    monkeypatch.setattr(tcp_connect, "ATTEMPT_DELAY_S", 3_600.0)
    port = served.getsockname()[1]
    refused = shared_port(["127.0.0.1"])

    async def scene(poller: Poller) -> None:
        failures: Failures = {}
        line = (at("127.0.0.1", refused), at("::1", port))
        upstream, winner = await Running(poller, lambda steps: race(steps, line, 5.0, failures)).finished()
        assert winner is line[1]
        assert list(failures) == [line[0]]
        assert failures[line[0]].reason is CloseReason.DIAL_FAILED
        poller.close_socket(upstream)

    play(scene)


def test_the_first_may_still_win_after_the_second_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_connect, "ATTEMPT_DELAY_S", 0.01)

    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        with contextlib.ExitStack() as stack:
            stack.enter_context(deaf("::1", port))
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", port))
            first.listen(0)
            filler = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            line = (at("127.0.0.1", port), at("::1", port))
            running = Running(poller, lambda steps: race(steps, line, 60.0, {}))
            await eventually(lambda: open_sockets_to("::1", port) == 3, PATIENCE_S, what="the second has begun")
            assert not running.ended
            first.accept()[0].close()
            upstream, winner = await running.finished()
            assert winner is line[0]
            assert open_sockets_to("::1", port) == 2
            poller.close_socket(upstream)
            filler.close()

    play(scene)


def test_when_all_fail_each_says_why_and_there_is_no_winner() -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        failures: Failures = {}
        line = (at("127.0.0.1", port), at("::1", port))
        assert await Running(poller, lambda steps: race(steps, line, 5.0, failures)).finished() is None
        assert list(failures) == list(line)
        assert {str(error) for error in failures.values()} == {"Connection refused"}

    play(scene)


def test_the_deadline_ends_all_that_were_begun() -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        failures: Failures = {}
        line = (at("127.0.0.1", port), at("::1", port))

        async def timed(steps: Steps) -> object:
            steps.deadline(2 * tcp_connect.ATTEMPT_DELAY_S)
            return await race(steps, line, 0.5, failures)

        with deaf("127.0.0.1", port), deaf("::1", port):
            assert await Running(poller, timed).finished() is None
            assert list(failures) == list(line)
            assert {error.reason for error in failures.values()} == {CloseReason.DIAL_TIMEOUT}
            assert open_sockets_to("127.0.0.1", port) == open_sockets_to("::1", port) == 2

    play(scene)


def test_cancelling_closes_all() -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        line = (at("127.0.0.1", port), at("::1", port))
        with deaf("127.0.0.1", port), deaf("::1", port):
            running = Running(poller, lambda steps: race(steps, line, 60.0, {}))
            await eventually(lambda: open_sockets_to("::1", port) == 3, PATIENCE_S)
            running.steps.cancel()
            with pytest.raises(Cancelled):
                await running.finished()
            assert open_sockets_to("127.0.0.1", port) == open_sockets_to("::1", port) == 2

    play(scene)


def test_an_address_that_no_socket_can_be_had_for_has_failed(served: socket.socket) -> None:
    async def scene(poller: Poller) -> None:
        failures: Failures = {}
        unroutable = at("ff02::1", 1)  # link-local without a link
        line = (unroutable, at("::1", served.getsockname()[1]))
        upstream, winner = await Running(poller, lambda steps: race(steps, line, 5.0, failures)).finished()
        assert winner is line[1]
        assert isinstance(failures[unroutable], UpstreamError)
        poller.close_socket(upstream)

    play(scene)


def open_sockets_to(address: str, port: int) -> int:
    """Sockets of this host that are connected, or connecting, to there."""
    family = "6" if ":" in address else ""
    wanted = f"{_in_proc_net(address)}:{port:04X}"
    with open(f"/proc/net/tcp{family}", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    # 01 is established, 02 is connecting; columns are local, remote, state.
    return sum(row[2] == wanted and row[3] in {"01", "02"} for row in rows)


def _in_proc_net(address: str) -> str:
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    words = [packed[at : at + 4][::-1] for at in range(0, len(packed), 4)]
    return "".join(word.hex() for word in words).upper()
