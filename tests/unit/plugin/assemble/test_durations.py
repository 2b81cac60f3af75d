"""Durations are read as Go reads them."""

from __future__ import annotations

import pytest

from plugin.assemble.durations import duration_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5s", 5.0),
        ("1m30s", 90.0),
        ("1h0m0.5s", 3600.5),
        ("250ms", 0.25),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("7ns", 7e-9),
        ("-2s", -2.0),
        ("+2s", 2.0),
        ("0", 0.0),
        ("", 0.0),
        (1_500_000_000, 1.5),
        (0, 0.0),
    ],
)
def test_what_is_a_duration(value: str | int, seconds: float) -> None:
    assert duration_s(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["5", "5 s", "s", "1d", "five", "--5s", "1m30", "5s!", "-", "1,5s", "٥s"])
def test_what_is_none(value: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        duration_s(value)


@pytest.mark.parametrize("value", ["9" * 90 + "h", "2562047h47m16.854775808s", 10**400, -(10**30)])
def test_what_go_cannot_hold_is_refused(value: str | int) -> None:
    with pytest.raises(ValueError, match=r"292 years|not a duration"):
        duration_s(value)
