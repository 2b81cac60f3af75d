"""Consul's match answer, as raw JSON, becomes what the data plane decides by."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.assemble.intentions import decode_intentions
from plugin.consul.api import IntentionMatch
from proxy.rules import Action, Intention


def decoded(raw: str) -> Intention:
    (intention,) = decode_intentions(msgspec.json.decode(f"[{raw}]", type=tuple[IntentionMatch, ...]))
    return intention


def test_an_answer_of_consul_1_8() -> None:
    raw = """{"ID": "e1", "SourceNS": "default", "SourceName": "web", "DestinationNS": "default",
              "DestinationName": "db", "SourceType": "consul", "Action": "allow", "Meta": {}, "Precedence": 9,
              "DefaultAddr": "", "DefaultPort": 0, "CreateIndex": 5, "ModifyIndex": 5}"""
    assert decoded(raw) == Intention("web", Action.ALLOW, 9, destination="db")


@pytest.mark.parametrize("action", ["", "deny", "ALLOW", "log"])
def test_any_other_action_denies(action: str) -> None:
    raw = f'{{"SourceName": "web", "DestinationName": "db", "Action": "{action}", "Precedence": 9}}'
    assert decoded(raw).action is Action.DENY


@pytest.mark.parametrize(
    "extra", ['"Permissions": [{"Action": "allow"}]', '"JWT": {"Providers": []}', '"JWT": {}, "Action": "allow"']
)
def test_permissions_and_jwt_are_of_layer_7(extra: str) -> None:
    assert decoded(f'{{"SourceName": "web", "DestinationName": "db", "Precedence": 9, {extra}}}').layer7


def test_a_source_of_a_peer_a_partition_and_a_namespace() -> None:
    raw = """{"SourceName": "web", "SourceNS": "ops", "SourcePartition": "east", "SourcePeer": "west",
              "DestinationName": "*", "Action": "allow", "Precedence": 3}"""
    assert decoded(raw) == Intention("web", Action.ALLOW, 3, "ops", "east", "west", "*")


def test_a_sameness_group_is_not_taken_for_this_cluster() -> None:
    raw = """{"SourceName": "web", "SourceSamenessGroup": "g", "DestinationName": "db", "Action": "allow",
              "Precedence": 9}"""
    assert decoded(raw).action is Action.DENY


@given(st.lists(st.integers(1, 9)))
def test_the_highest_precedence_comes_first_and_equals_keep_their_order(precedences: list[int]) -> None:
    matches = [
        IntentionMatch(source_name=str(place), destination_name="db", precedence=precedence)
        for place, precedence in enumerate(precedences)
    ]
    keys = [(-intention.precedence, int(intention.source)) for intention in decode_intentions(matches)]
    assert keys == sorted(keys)
    assert len(keys) == len(precedences)
