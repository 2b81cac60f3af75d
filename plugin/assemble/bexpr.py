"""Filter expressions of service-resolver subsets, as Consul evaluates them (go-bexpr 0.1.2).

An expression is compiled once against the shape of a health entry: an unknown selector, an operator that its type
does not have, or a bad regular expression is an error at compile time, as in Consul. Regular expressions are RE2,
and find a match anywhere in the text. This module is pure. The language:
https://developer.hashicorp.com/consul/api-docs/features/filtering
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from plugin.assemble.bexpr_fields import ENTRY, Kind, List, Map, Scalar, Struct
from plugin.assemble.bexpr_syntax import BexprError, Binary, Match, Node, Not, Operator, parse
from plugin.consul.api import HealthEntry

__all__ = ["BexprError", "Filter", "compile_filter"]

Test = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled expression."""

    text: str
    _test: Test

    def matches(self, entry: HealthEntry) -> bool:
        return self._test(entry)


@lru_cache(maxsize=1024)
def compile_filter(text: str) -> Filter:
    """Compile ``text`` for health entries. :raises BexprError: when Consul would refuse it, and says why."""
    return Filter(text, _compiled(parse(text)))


_EMPTY_OF = {Scalar.TEXT: "", Scalar.NUMBER: 0, Scalar.TRUTH: False}

_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}

_INTEGER = re.compile(
    r"([+-]?)(?:0([0-7](?:_?[0-7])*)|0[oO](?:_?[0-7])+|0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0|[1-9](?:_?[0-9])*)",
    re.ASCII,
)
_LONGEST_NUMBER = 200

_ABSENT_KEY_HOLDS = frozenset(
    # Of a key that a map does not have, Consul also says that it matches any expression.
    {Operator.NOT_EQUAL, Operator.NOT_IN, Operator.IS_EMPTY, Operator.MATCHES, Operator.NOT_MATCHES}
)


def _compiled(node: Node) -> Test:
    if isinstance(node, Not):
        operand = _compiled(node.operand)
        return lambda entry: not operand(entry)
    if isinstance(node, Binary):
        left, right = _compiled(node.left), _compiled(node.right)
        if node.conjunction:
            return lambda entry: left(entry) and right(entry)
        return lambda entry: left(entry) or right(entry)
    return _walk(ENTRY, node, 0)


def _walk(kind: Kind, match: Match, depth: int) -> Test:
    """Return the test for a value of type ``kind``, reached after ``depth`` elements of the selector."""
    if depth == len(match.selector):
        return _operation(kind, match)
    name = match.selector[depth]
    if isinstance(kind, Struct) and name in kind.fields:
        attribute, field = kind.fields[name]
        rest = _walk(field, match, depth + 1)
        return lambda value: rest(None if value is None else getattr(value, attribute))
    if isinstance(kind, Map):
        return _walk_key(name, _walk(kind.value, match, depth + 1), match.operator in _ABSENT_KEY_HOLDS)
    if isinstance(kind, List) and isinstance(kind.element, Struct):
        element = _walk(kind.element, match, depth)
        return lambda value: any(element(item) for item in value or ())
    raise BexprError(f"the selector {'.'.join(match.selector[: depth + 1])!r} is not one that the gateway knows")


def _walk_key(name: str, rest: Test, absent: bool) -> Test:
    def test(value: Any) -> bool:
        return rest(value[name]) if value and name in value else absent

    return test


def _operation(kind: Kind, match: Match) -> Test:
    """Return the comparison itself, negated when the operator is."""
    positive, negated = match.operator.positive
    test = _positive(kind, positive, match)
    if test is None:
        raise BexprError(f"the operator {match.operator.value!r} cannot be used with {'.'.join(match.selector)!r}")
    return (lambda value: not test(value)) if negated else test


def _positive(kind: Kind, operator: Operator, match: Match) -> Test | None:
    if operator is Operator.IS_EMPTY and isinstance(kind, List | Map):
        return lambda value: not value
    if operator is Operator.EQUAL and isinstance(kind, Scalar):
        wanted, empty = _coerced(kind, match), _EMPTY_OF[kind]
        return lambda value: bool((empty if value is None else value) == wanted)
    if operator is Operator.IN and (kind is Scalar.TEXT or isinstance(kind, Map)):
        return lambda value: match.value in (value or "")
    if operator is Operator.IN and isinstance(kind, List) and isinstance(kind.element, Scalar):
        element = _coerced(kind.element, match)
        return lambda value: element in (value or ())
    if operator is Operator.MATCHES and kind is Scalar.TEXT:
        expression = _regular_expression(match.value)
        return lambda value: expression.search(value or "") is not None
    return None


def _coerced(kind: Scalar, match: Match) -> str | int | bool:
    """Read the literal as the type that it is compared with."""
    if kind is Scalar.TEXT:
        return match.value
    try:
        return _TRUTHS[match.value] if kind is Scalar.TRUTH else _integer(match.value)
    except (KeyError, ValueError) as error:
        raise BexprError(f"{match.value!r} cannot be compared with {'.'.join(match.selector)!r}") from error


def _integer(text: str) -> int:
    """Read a number as Go does (strconv.ParseInt, base 0). :raises ValueError: when it is none of 64 bits."""
    found = _INTEGER.fullmatch(text)
    if found is None or len(text) > _LONGEST_NUMBER:
        raise ValueError(text)
    number = int(f"{found[1]}0o{found[2]}" if found[2] else text, 0)
    if not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _regular_expression(text: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except (re2.error, UnicodeEncodeError) as error:
        raise BexprError(f"{text!r} is not a regular expression of RE2: {error}") from error
