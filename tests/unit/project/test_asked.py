"""The checked requests of a soak: what is found wrong in them."""

from __future__ import annotations

import random

import pytest

from soak.asked import FLIP, NAME, OPEN, SHUT, Ask, Checked, arrived, pair_of
from soak.ledger import Ledger
from soak.pump import Content, Wrong

ASK = Ask(7, 1234, 50, 60)


def test_it_says_what_it_asks_for() -> None:
    assert Ask.of([(b"host", b"a"), (NAME, ASK.encode())]) == ASK
    for wrong in ([], [(NAME, ASK.encode())] * 2):
        with pytest.raises(Wrong):
            Ask.of(wrong)
    assert 1 <= Ask.random(random.Random(1), 1, 100).up <= 100


def test_each_byte_of_a_body_is_looked_at() -> None:
    up = Content(ASK.seed, True).take(ASK.up)
    whole = Checked(ASK, ASK.up, from_client=True)
    whole.take(up[:20])
    whole.take(up[20:])
    whole.end()
    with pytest.raises(Wrong, match="too many"):
        whole.take(b"x")
    short = Checked(ASK, ASK.up, from_client=True)
    short.take(up[:-1])
    with pytest.raises(Wrong, match="truncated"):
        short.end()
    with pytest.raises(Wrong, match="wrong bytes"):
        Checked(ASK, ASK.down, from_client=False).take(up)


def test_what_is_denied_must_not_arrive() -> None:
    ledger = Ledger()
    for path in (OPEN, FLIP):
        arrived(ledger, f"{path}/1")
    assert ledger.violations == []
    arrived(ledger, f"{SHUT}/1")
    assert len(ledger.violations) == 1
    assert len({pair_of("web", "db", path) for path in (OPEN, FLIP, SHUT)}) == 3
    assert pair_of("web", "db", OPEN) == ("web", "db")
