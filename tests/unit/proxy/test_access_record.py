from __future__ import annotations

import pytest

from proxy.records.access_record import timestamp


@pytest.mark.parametrize(
    ("wall_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (1_700_000_000.25, "2023-11-14T22:13:20.250000Z"),
        (1_700_000_000.9999999, "2023-11-14T22:13:21.000000Z"),
    ],
)
def test_times_are_rfc_3339_in_utc(wall_s: float, text: str) -> None:
    assert timestamp(wall_s) == text
