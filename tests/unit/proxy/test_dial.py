"""Reaching an external service by its addresses: which are tried, what fails how, what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from plugin.dev.external import ExternalService, banner_first, echo
from plugin.dev.pki import Authority
from proxy.errors import UpstreamError
from proxy.model import Balance, CloseReason, Endpoint, Keepalive, Leaf, Mesh, Service, ServiceName, UpstreamTLS
from proxy.policy.identity import Identity
from proxy.policy.intentions import Permit, Policy
from proxy.rules import Action
from proxy.sockets import tcp_connect
from proxy.sockets.channel import Buffers, Channel
from proxy.sockets.poller import Poller
from proxy.sockets.steps import Steps
from proxy.sockets.tcp_connect import Failures
from proxy.tls.context import UpstreamContext
from proxy.upstream.balance import EndpointSet
from proxy.upstream.dial import Target, _set_options, dial
from proxy.upstream.ejection import FAILURES
from proxy.upstream.rivals import Rivals
from tests.support.eventually import eventually
from tests.support.ports import deaf, shared_port

PATIENCE_S = 20.0
BUFFERS = Buffers()


def permit() -> Permit:
    """Nothing but a policy makes one."""
    service = Service(ServiceName("db"), Leaf("", "", "", "", 0, 0), (), intentions=())
    policy = Policy.compile(service, Mesh("t.consul", "dc1", (), default_action=Action.ALLOW))
    decision = policy.authorize(Identity("t.consul", "web"))
    assert isinstance(decision, Permit)
    return decision


def target(*endpoints: Endpoint, timeout_s: float = 5.0, **fields: Any) -> Target:
    balanced = EndpointSet(endpoints, Balance())
    return Target(endpoints=balanced, rivals=Rivals(endpoints), connect_timeout_s=timeout_s, **fields)


class Dialled:
    """One call of ``dial``, and how it ended."""

    def __init__(self, poller: Poller, where: Target) -> None:
        self._ended: list[BaseException | None] = []
        self._opened: tuple[Channel, Endpoint] | None = None
        self._poller = poller
        self.reported: list[tuple[Failures, int]] = []
        steps = Steps(poller, self._ended.append)

        async def run() -> None:
            self._opened = await dial(permit(), where, "192.0.2.9", steps, BUFFERS, self._report)

        steps.run(run())

    def _report(self, failures: Failures, ejected: int) -> None:
        self.reported.append((dict(failures), ejected))

    async def endpoint(self) -> Endpoint:
        """Close the channel and return where it went. :raises UpstreamError: when it went nowhere."""
        await eventually(lambda: self._ended, PATIENCE_S)
        if self._ended[0] is not None:
            raise self._ended[0]
        assert self._opened is not None
        channel, endpoint = self._opened
        self._poller.forget(channel.fd)
        channel.close()
        return endpoint

    async def failure(self) -> UpstreamError:
        with pytest.raises(UpstreamError) as caught:
            await self.endpoint()
        return caught.value


def play(scene: Callable[[Poller], Awaitable[None]]) -> None:
    poller = Poller()

    async def staged() -> None:
        await scene(poller)

    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(staged())


def dual_stack(port: int) -> tuple[Endpoint, Endpoint]:
    """One instance that was registered by its name."""
    return (
        Endpoint("127.0.0.1", port, "db.example", instance="node/db"),
        Endpoint("::1", port, "db.example", instance="node/db"),
    )


def test_a_service_without_instances_is_told_so() -> None:
    async def scene(poller: Poller) -> None:
        failure = await Dialled(poller, target()).failure()
        assert failure.reason is CloseReason.NO_ENDPOINTS

    play(scene)


def test_nothing_is_dialled_when_upstream_tls_cannot_be_had() -> None:
    async def scene(poller: Poller) -> None:
        async with ExternalService(echo) as service:
            where = target(Endpoint("127.0.0.1", service.port), unusable="CAFile is junk")
            failure = await Dialled(poller, where).failure()
            assert (failure.reason, str(failure)) == (CloseReason.UPSTREAM_TLS_FAILED, "CAFile is junk")
            assert service.accepted == 0

    play(scene)


def test_each_endpoint_that_was_tried_is_named_with_its_failure() -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "127.0.0.2", "::1"])
        plain = Endpoint("127.0.0.2", port)
        failure = await Dialled(poller, target(plain, *dual_stack(port))).failure()
        assert failure.reason is CloseReason.DIAL_FAILED
        assert sorted(str(failure).split("; ")) == [
            f"127.0.0.1:{port} (db.example): Connection refused",
            f"127.0.0.2:{port}: Connection refused",
            f"[::1]:{port} (db.example): Connection refused",
        ]

    play(scene)


def test_attempts_that_fail_are_reported_also_when_another_one_succeeds() -> None:
    async def scene(poller: Poller) -> None:
        async with ExternalService(echo) as service:
            dead = Endpoint("127.0.0.1", shared_port(["127.0.0.1"]))
            where = target(dead, Endpoint("127.0.0.1", service.port))
            reports = []
            for _ in range(2 * FAILURES):
                dialled = Dialled(poller, where)
                await dialled.endpoint()
                reports += dialled.reported
            assert [list(failures) for failures, _ in reports] == [[dead]] * FAILURES
            assert [ejected for _, ejected in reports] == [0] * (FAILURES - 1) + [1]

    play(scene)


def test_a_hostname_is_reached_by_either_family_and_its_slow_address_is_not_tried_first_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        async with ExternalService(echo, address="::1", port=port) as service:
            where = target(*dual_stack(port))
            with deaf("127.0.0.1", port):
                for _ in range(2):
                    assert (await Dialled(poller, where).endpoint()).address == "::1"
                # Each of the two was chosen once by now. Nothing would be connected any more by a second attempt:
                monkeypatch.setattr(tcp_connect, "ATTEMPT_DELAY_S", 3_600.0)
                for _ in range(4):
                    assert (await Dialled(poller, where).endpoint()).address == "::1"
            await eventually(lambda: service.accepted == 6, PATIENCE_S)

    play(scene)


def test_instances_with_an_ip_address_do_not_race(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_connect, "ATTEMPT_DELAY_S", 0.01)

    async def scene(poller: Poller) -> None:
        async with ExternalService(echo) as service:
            with deaf("::1") as port:
                one, other = Endpoint("::1", port), Endpoint("127.0.0.1", service.port)
                for _ in range(2):
                    assert await Dialled(poller, target(one, other, timeout_s=0.3)).endpoint() == other
            assert service.accepted == 2

    play(scene)


def test_the_race_is_over_before_tls_begins_and_the_loser_sees_no_byte() -> None:
    authority = Authority("Partner CA")
    tls = UpstreamContext(UpstreamTLS(authority.certificate_pem, server_name="db.example"))

    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        with contextlib.ExitStack() as stack:
            slow = stack.enter_context(socket.socket())
            slow.bind(("127.0.0.1", port))
            slow.listen(0)
            filler = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            service = ExternalService(banner_first, tls=authority.server("db.example"), address="::1", port=port)
            async with service:
                where = target(*dual_stack(port), tls=tls)
                opened = [await Dialled(poller, where).endpoint() for _ in range(2)]
                assert {endpoint.address for endpoint in opened} == {"::1"}
                # What the kernel has completed for the losers since then holds nothing but an end.
                slow.settimeout(0.5)
                filler.close()
                with contextlib.suppress(TimeoutError):
                    while True:
                        peer = stack.enter_context(slow.accept()[0])
                        peer.settimeout(PATIENCE_S)
                        with contextlib.suppress(ConnectionError):
                            assert peer.recv(1) == b""

    play(scene)


def test_the_timeout_holds_for_tcp_and_tls_together() -> None:
    authority = Authority("Partner CA")
    tls = UpstreamContext(UpstreamTLS(authority.certificate_pem))

    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        # It accepts TCP and says nothing.
        with socket.create_server(("::1", port), family=socket.AF_INET6), deaf("127.0.0.1", port):
            began_s = poller.loop.time()
            failure = await Dialled(poller, target(*dual_stack(port), tls=tls, timeout_s=0.5)).failure()
            assert failure.reason is CloseReason.DIAL_TIMEOUT
            assert f"[::1]:{port} (db.example): no connection within 0.5 s" in str(failure)
            # The address that is left over is tried in the same way, once.
            assert poller.loop.time() - began_s >= 0.5

    play(scene)


def test_a_tls_failure_of_the_winner_is_its_own_and_others_are_tried() -> None:
    authority = Authority("Partner CA")
    tls = UpstreamContext(UpstreamTLS(authority.certificate_pem, server_name="db.example"))

    async def scene(poller: Poller) -> None:
        port = shared_port(["127.0.0.1", "::1"])
        wrong = ExternalService(echo, tls=authority.server("other.example"), address="127.0.0.1", port=port)
        right = ExternalService(echo, tls=authority.server("db.example"), address="::1", port=port)
        async with wrong, right:
            for _ in range(4):
                assert (await Dialled(poller, target(*dual_stack(port), tls=tls)).endpoint()).address == "::1"

    play(scene)


TIMES = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)


@pytest.fixture
def upstream() -> Iterator[socket.socket]:
    with socket.socket() as one:
        yield one


def times(upstream: socket.socket) -> list[int]:
    return [upstream.getsockopt(socket.IPPROTO_TCP, option) for option in TIMES]


def kept_alive(upstream: socket.socket) -> bool:
    return bool(upstream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


def test_keepalive_as_it_is_configured(upstream: socket.socket) -> None:
    _set_options(upstream, Keepalive(time_s=120, interval_s=11, probes=4))
    assert kept_alive(upstream)
    assert times(upstream) == [120, 11, 4]


def test_what_is_not_configured_is_the_kernels(upstream: socket.socket) -> None:
    kernels = times(upstream)
    _set_options(upstream, Keepalive(interval_s=11))
    assert kept_alive(upstream)
    assert times(upstream) == [kernels[0], 11, kernels[2]]


def test_without_keepalive_there_is_none(upstream: socket.socket) -> None:
    _set_options(upstream, None)
    assert not kept_alive(upstream)
    assert upstream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
