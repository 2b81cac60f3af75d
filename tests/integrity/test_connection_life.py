"""The life of connections as a state machine: any order of what clients, services and the control process do.

After every step the books have to balance, and in the end nothing may be left. Hypothesis shrinks what fails, and
prints the steps; the seed is fixed, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from typing import Any
from unittest import mock

import hypothesis.strategies as st
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from plugin.dev.pki import Authority
from proxy.connection import TRANSITIONS, ConnectionLife, Event, State
from proxy.live import text_of
from proxy.messages import Limits
from proxy.model import CloseReason, ServiceName
from proxy.rules import Intention
from tests.support.mesh import HandMadeMesh, allow, deny, sni
from tests.support.plane import Peer, PlaneUnderTest

MESH = HandMadeMesh()
_STRANGERS = Authority("Another CA")
_ROOM = Limits(connections=6, pending_handshakes=4, handshake_timeout_s=0)
_SOURCES = ("web", "batch")
_CONTEXTS: dict[str, ssl.SSLContext] = {name: MESH.client_context(MESH.leaf(name)) for name in _SOURCES} | {
    "stranger": MESH.client_context(_STRANGERS.leaf("11111111-2222-3333-4444-555555555555.consul", "web")),
    "nobody": MESH.client_context(None),
}
_NUMBER = 2
"""Bytes of its own number that each client says first, so that a service knows whose bytes it has."""


class Client:
    def __init__(self, number: int, source: str, peer: Peer) -> None:
        self.number, self.source, self.peer = number, source, peer
        self.may_speak = False
        """It was allowed at some moment since it came."""


class ConnectionMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        logging.disable(logging.ERROR)
        self.stack = contextlib.ExitStack()
        self.listening = self.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        self.listening.setblocking(False)
        with socket.create_server(("127.0.0.1", 0)) as closed:
            self.closed_port: int = closed.getsockname()[1]
        self.under_test = PlaneUnderTest(limits=_ROOM)
        self.stack.enter_context(self.under_test)
        self.clients: list[Client] = []
        self.services: list[Peer] = []
        self.accepting = True
        self.denied: set[str] = set()
        self.linked = True
        self._watch_states()

    def _watch_states(self) -> None:
        """Every change of a state is one of the table."""
        advance = ConnectionLife.advance

        def watched(life: ConnectionLife, event: Event) -> None:
            before = life.state
            advance(life, event)
            assert TRANSITIONS[before, event] is life.state

        self.stack.enter_context(mock.patch.object(ConnectionLife, "advance", watched))

    # --- the control process ---------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.under_test.update(mesh=MESH.settings())
        self._link()

    def _link(self, **fields: Any) -> None:
        intentions: tuple[Intention, ...] = tuple(
            deny(name) if name in self.denied else allow(name) for name in _SOURCES
        )
        port = self.listening.getsockname()[1] if self.accepting else self.closed_port
        self.under_test.update(upserts=(MESH.service("db", port, intentions=intentions, **fields),))
        self.linked = True
        for client in self.clients:
            client.may_speak |= client.source in _SOURCES and client.source not in self.denied

    @rule(source=st.sampled_from(_SOURCES))
    def flip(self, source: str) -> None:
        self.denied ^= {source}
        # What was on its way before arrives before.
        self._settle()
        before = {id(one): one.received for one in self.services}
        self._link()
        for one in self.under_test.plane.live:
            assert one.life.permit is None or one.source is None or text_of(one.source) not in self.denied
        for client in self.clients:
            if client.source in self.denied:
                client.peer.send(b"after the denial")
        self._settle()
        for service in self.services:
            owner = self._owner(service)
            if owner is not None and owner.source in self.denied and id(service) in before:
                assert service.received == before[id(service)], "bytes passed after the denial"

    @rule()
    def new_leaf(self) -> None:
        self._link()

    @rule()
    def unlink(self) -> None:
        self.under_test.update(removals=(ServiceName("db"),))
        self.linked = False
        assert all(one.life.permit is None for one in self.under_test.plane.live)

    @rule(accepting=st.booleans())
    def service_listens(self, accepting: bool) -> None:
        self.accepting = accepting
        self._link()

    @rule()
    def end_all(self) -> None:
        plane = self.under_test.plane
        self.under_test.call(lambda: plane.end_all(CloseReason.KILLED, "by an operator"))
        assert not plane.live

    # --- clients ---------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.clients) < 20)
    @rule(
        source=st.sampled_from((*_SOURCES, *_SOURCES, "stranger", "nobody")),
        part=st.sampled_from((0.0, 0.3, 1.0, 1.0, 1.0)),
    )
    def connect(self, source: str, part: float) -> None:
        connected = socket.create_connection(("127.0.0.1", self.under_test.port))
        client = Client(len(self.clients), source, Peer(connected, _CONTEXTS[source], sni("db")))
        client.may_speak = source in _SOURCES and source not in self.denied
        self.clients.append(client)
        if part:
            client.peer.hello(part)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), garbage=st.binary(min_size=1, max_size=300))
    def say_garbage(self, data: st.DataObject, garbage: bytes) -> None:
        data.draw(st.sampled_from(self.clients)).peer.raw(garbage)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), size=st.sampled_from((1, 100, 70_000)))
    def send(self, data: st.DataObject, size: int) -> None:
        client = data.draw(st.sampled_from(self.clients))
        if not client.peer.sent:
            client.peer.send(client.number.to_bytes(_NUMBER, "big"))
        if client.peer.sent:
            client.peer.send(b"x" * size)

    @precondition(lambda self: self.clients)
    @rule(data=st.data(), how=st.sampled_from(("finish", "close", "reset")))
    def client_ends(self, data: st.DataObject, how: str) -> None:
        _end(data.draw(st.sampled_from(self.clients)).peer, how)

    # --- services --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.services)
    @rule(data=st.data(), size=st.sampled_from((1, 70_000)))
    def answer(self, data: st.DataObject, size: int) -> None:
        data.draw(st.sampled_from(self.services)).send(b"y" * size)

    @precondition(lambda self: self.services)
    @rule(data=st.data(), how=st.sampled_from(("finish", "close", "reset")))
    def service_ends(self, data: st.DataObject, how: str) -> None:
        _end(data.draw(st.sampled_from(self.services)), how)

    @rule()
    def time_passes(self) -> None:
        self._settle()

    # --- what holds ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for _ in range(6):
            self.under_test.turn()
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.services.append(Peer(self.listening.accept()[0]))
            for peer in (*self.services, *(client.peer for client in self.clients)):
                peer.step()

    def _owner(self, service: Peer) -> Client | None:
        if len(service.received) < _NUMBER:
            return None
        return self.clients[int.from_bytes(service.received[:_NUMBER], "big")]

    @invariant()
    def the_books_balance(self) -> None:
        self.under_test.turn()
        self.under_test.check()

    @invariant()
    def nobody_speaks_without_a_permit(self) -> None:
        for service in self.services:
            owner = self._owner(service)
            if owner is not None:
                assert owner.may_speak, f"{owner.source} was never allowed"
                assert owner.peer.sent.startswith(service.received)

    def teardown(self) -> None:
        try:
            for client in self.clients:
                client.peer.close()
            self._settle()
            for service in self.services:
                service.close()
        finally:
            self.stack.close()
            logging.disable(logging.NOTSET)


def _end(peer: Peer, how: str) -> None:
    if how == "finish":
        peer.finish()
    else:
        peer.close(reset=how == "reset")


assert State.CLOSED not in {state for state, _ in TRANSITIONS}, "what is closed stays closed"

TestConnectionLife = seed(20)(ConnectionMachine).TestCase
TestConnectionLife.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
