"""A mistake in a format costs its own place in the line, and is reported by name."""

from __future__ import annotations

import pytest

from plugin.assemble.access_logs import OPERATORS, access_log_choice
from plugin.consul.api import AccessLogs
from proxy.model import LogPart
from proxy.records import access_format


def test_workers_know_every_operator_that_is_handed_to_them() -> None:
    assert OPERATORS == access_format.OPERATORS


@pytest.mark.parametrize("settings", [None, AccessLogs(), AccessLogs(text_format="x")])
def test_absent_or_not_enabled_is_the_built_in_line(settings: AccessLogs | None) -> None:
    assert access_log_choice(settings).layout is None


def test_enabled_without_a_format_is_the_built_in_line_too() -> None:
    layout = access_log_choice(AccessLogs(enabled=True, disable_listener_logs=True)).layout
    assert layout is not None
    assert (layout.parts, layout.listener) == ((), False)


@pytest.mark.parametrize(
    ("text", "told", "parts"),
    [
        ("%NOPE%", "%NOPE% is not known", (LogPart("-\n"),)),
        ("%BYTES_SENT:3%", "%BYTES_SENT% takes no length", (LogPart("", "BYTES_SENT"), LogPart("\n"))),
        ("%DURATION(x)%", "%DURATION% takes no (...)", (LogPart("", "DURATION"), LogPart("\n"))),
        ("%REQ%", "names no header", (LogPart("-\n"),)),
        (
            "50% of %DURATION%",
            "has a % that begins no operator",
            (LogPart("50% of "), LogPart("", "DURATION"), LogPart("\n")),
        ),
    ],
)
def test_a_mistake_in_a_text_is_named(text: str, told: str, parts: tuple[LogPart, ...]) -> None:
    choice = access_log_choice(AccessLogs(enabled=True, text_format=text))
    assert choice.layout is not None
    assert choice.layout.parts == parts
    (warning,) = choice.warnings
    assert told in warning
    assert warning.endswith("Correct the entry")


@pytest.mark.parametrize(("text", "told"), [("[1]", "is not an object"), ("{", "is not JSON")])
def test_a_json_format_that_is_no_object_leaves_the_built_in_line(text: str, told: str) -> None:
    choice = access_log_choice(AccessLogs(enabled=True, json_format=text))
    assert choice.layout is not None
    assert choice.layout.parts == ()
    assert told in choice.warnings[0]


def test_operators_of_http_are_no_mistake() -> None:
    text = "%REQ(:METHOD)% %RESP(X)% %PROTOCOL% %DYNAMIC_METADATA(a:b)% %RESPONSE_CODE_DETAILS%"
    assert access_log_choice(AccessLogs(enabled=True, text_format=text)).warnings == ()


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}', '{"a":' * 5_000, "[" * 100_000])
def test_a_json_format_that_only_looks_like_json_leaves_the_built_in_line(text: str) -> None:
    choice = access_log_choice(AccessLogs(enabled=True, json_format=text))
    assert choice.layout is not None
    assert choice.layout.parts == ()
    assert len(choice.warnings) == 1
