"""The life of a connection: only what the table lists happens, and one reason stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.connection import TRANSITIONS, ConnectionLife, Event, State
from proxy.model import CloseReason


def life() -> ConnectionLife:
    return ConnectionLife(1, "127.0.0.1:5", wall_s=0.0, monotonic_s=0.0)


@given(st.lists(st.sampled_from(Event), max_size=8))
def test_every_sequence_follows_the_table_or_is_a_bug(events: list[Event]) -> None:
    connection = life()
    for event in events:
        before = connection.state
        expected = TRANSITIONS.get((before, event))
        if expected is None:
            with pytest.raises(AssertionError, match="cannot happen"):
                connection.advance(event)
            assert connection.state is before
        else:
            connection.advance(event)
            assert connection.state is expected


def test_nothing_is_dialled_from_anywhere_but_a_permit() -> None:
    into_open = [state for (state, _), following in TRANSITIONS.items() if following is State.OPEN]
    into_dialling = [(state, event) for (state, event), following in TRANSITIONS.items() if following is State.DIALLING]
    assert into_open == [State.DIALLING]
    assert into_dialling == [(State.HANDSHAKING, Event.PERMITTED)]


def test_every_state_can_be_closed_and_closed_is_the_end() -> None:
    assert {state for state, event in TRANSITIONS if event is Event.CLOSE} == set(State) - {State.CLOSED}
    assert not [state for state, _ in TRANSITIONS if state is State.CLOSED]


@given(st.lists(st.sampled_from(CloseReason), min_size=1))
def test_the_first_reason_stays(reasons: list[CloseReason]) -> None:
    connection = life()
    told = [connection.close(reason, reason.value) for reason in reasons]
    assert told == [True] + [False] * (len(reasons) - 1)
    assert (connection.reason, connection.detail) == (reasons[0], reasons[0].value)
