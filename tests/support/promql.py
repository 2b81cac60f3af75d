"""Enough of PromQL's grammar to name what an expression uses: metrics, their matchers, and labels that are grouped by.

Tokens are those of Prometheus' lexer. An identifier is a function when ``(`` follows, a keyword when it is one, else a
metric; what stands in braces are label matchers of the metric before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<range>\[[^\]]*\])
    |(?P<number>\d+(?:\.\d+)?(?:[smhdwy]|ms)?)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<operator>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},]))""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"and", "or", "unless", "bool", "offset"})
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_FUNCTIONS = frozenset({"sum", "min", "max", "rate", "increase", "histogram_quantile", "time"})


@dataclass(frozen=True)
class Selector:
    """One use of a metric."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = ()
    """``(label, operator, value)``"""


@dataclass
class Used:
    selectors: list[Selector] = field(default_factory=list)
    grouped_by: set[str] = field(default_factory=set)


def used(expression: str) -> Used:
    """:raises ValueError: when it is not understood, a function is not known, or parentheses are not balanced."""
    tokens = list(_tokens(expression))
    found, place = Used(), 0
    if sum((text == "(") - (text == ")") for _, text in tokens):
        raise ValueError(f"unbalanced parentheses: {expression}")
    while place < len(tokens):
        kind, text = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        place += 1
        if kind != "name" or text in _KEYWORDS:
            continue
        if text in _GROUPING:
            place, labels = _list(tokens, place)
            found.grouped_by.update(labels)
        elif following == "(" or (following in _GROUPING and text in _FUNCTIONS):
            if text not in _FUNCTIONS:
                raise ValueError(f"{text} is no function that is known here: {expression}")
        else:
            matchers: tuple[tuple[str, str, str], ...] = ()
            if following == "{":
                place, matchers = _matchers(tokens, place + 1)
            found.selectors.append(Selector(text, matchers))
    return found


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position, text = 0, expression.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise ValueError(f"not understood at {text[position : position + 20]!r}: {expression}")
        yield match.lastgroup, match[match.lastgroup]
        position = match.end()


def _list(tokens: list[tuple[str, str]], place: int) -> tuple[int, list[str]]:
    if tokens[place][1] != "(":
        raise ValueError("a grouping without its labels")
    end = next(index for index in range(place, len(tokens)) if tokens[index][1] == ")")
    return end + 1, [text for kind, text in tokens[place:end] if kind == "name"]


def _matchers(tokens: list[tuple[str, str]], place: int) -> tuple[int, tuple[tuple[str, str, str], ...]]:
    found: list[tuple[str, str, str]] = []
    while tokens[place][1] != "}":
        (kind, label), (_, operator), (value_kind, value) = (*tokens, *[("", "")] * 3)[place : place + 3]
        if kind != "name" or operator not in ("=", "!=", "=~", "!~") or value_kind != "string":
            raise ValueError(f"no label matcher: {label} {operator} {value}")
        found.append((label, operator, value[1:-1]))
        place += 3
        if tokens[place][1] == ",":
            place += 1
    return place + 1, tuple(found)
