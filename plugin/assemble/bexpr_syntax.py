"""The grammar of Consul's filter expressions: text in, a tree out. Its meaning is in :mod:`plugin.assemble.bexpr`.

::

    or         = and [ space "or" space or ]
    and        = not [ space "and" space and ]
    not        = "not" space not | "(" or ")" | match
    match      = selector ("==" | "!=" | "contains" | "not contains" | "matches" | "not matches") value
               | selector ("is empty" | "is not empty")
               | value ("in" | "not in") selector
    selector   = identifier { "." identifier | "[" string "]" }
    value      = selector | number | string

Operators that are words need white space on both sides; ``not(...)`` is an error, as it is for Consul.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

from plugin.errors import GatewayError

_MAX_DEPTH = 100
"""Parentheses and ``not`` inside each other: a filter that is deeper is no operator's."""


class BexprError(GatewayError):
    """The expression is not one that Consul accepts."""


class Operator(enum.Enum):
    EQUAL = "=="
    NOT_EQUAL = "!="
    IN = "in"
    NOT_IN = "not in"
    MATCHES = "matches"
    NOT_MATCHES = "not matches"
    IS_EMPTY = "is empty"
    IS_NOT_EMPTY = "is not empty"

    @property
    def positive(self) -> tuple[Operator, bool]:
        """The operator without its negation, and whether there was one."""
        return _POSITIVE.get(self, self), self in _POSITIVE


_POSITIVE = {
    Operator.NOT_EQUAL: Operator.EQUAL,
    Operator.NOT_IN: Operator.IN,
    Operator.NOT_MATCHES: Operator.MATCHES,
    Operator.IS_NOT_EMPTY: Operator.IS_EMPTY,
}


@dataclass(frozen=True, slots=True)
class Match:
    selector: tuple[str, ...]
    operator: Operator
    value: str = ""


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    conjunction: bool
    """``and``; otherwise ``or``."""
    left: Node
    right: Node


Node = Match | Not | Binary

_S = r"[ \t\r\n]"
_SPACE = re.compile(rf"{_S}*")
_NOT = re.compile(rf"not{_S}+")
_AND = re.compile(rf"{_S}+and{_S}+")
_OR = re.compile(rf"{_S}+or{_S}+")
_CLOSE = re.compile(rf"{_S}*\)")
_WITH_VALUE = re.compile(rf"{_S}*(==|!=){_S}*|{_S}+(not{_S}+contains|contains|not{_S}+matches|matches){_S}+")
_WITHOUT_VALUE = re.compile(rf"{_S}+is{_S}+(not{_S}+)?empty")
_BEFORE_SELECTOR = re.compile(rf"{_S}+(not{_S}+)?in{_S}+")
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_NUMBER = re.compile(rf"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?={_S}|\)|\Z)")
_STRING = re.compile(r'`([^`]*)`|"([^"]*)"')
_OPEN_INDEX = re.compile(rf"\[{_S}*")
_CLOSE_INDEX = re.compile(rf"{_S}*\]")

_OPERATORS = {
    "==": Operator.EQUAL,
    "!=": Operator.NOT_EQUAL,
    "contains": Operator.IN,
    "not contains": Operator.NOT_IN,
    "matches": Operator.MATCHES,
    "not matches": Operator.NOT_MATCHES,
}


def parse(text: str) -> Node:
    """Return the tree of ``text``. :raises BexprError: with the place where it stops making sense."""
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        self._take(_SPACE)
        node = self._or()
        self._take(_SPACE)
        if self._at != len(self._text):
            raise self._error("the end of the expression")
        return node

    def _or(self) -> Node:
        operands = [self._and()]
        while self._take(_OR):
            operands.append(self._and())
        return _joined(False, operands)

    def _and(self) -> Node:
        operands = [self._not()]
        while self._take(_AND):
            operands.append(self._not())
        return _joined(True, operands)

    def _not(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise BexprError(f"the filter is nested more than {_MAX_DEPTH} levels deep")
        try:
            return self._negation() or self._grouping() or self._match()
        finally:
            self._depth -= 1

    def _negation(self) -> Node | None:
        return Not(self._not()) if self._take(_NOT) else None

    def _grouping(self) -> Node | None:
        if not self._text.startswith("(", self._at):
            return None
        self._at += 1
        self._take(_SPACE)
        node = self._or()
        if not self._take(_CLOSE):
            raise self._error('")"')
        return node

    def _match(self) -> Node:
        start = self._at
        selector = self._selector()
        if selector is not None:
            if found := self._take(_WITH_VALUE):
                word = " ".join((found[1] or found[2]).split())
                return Match(selector, _OPERATORS[word], self._value())
            if found := self._take(_WITHOUT_VALUE):
                return Match(selector, Operator.IS_NOT_EMPTY if found[1] else Operator.IS_EMPTY)
        self._at = start
        value = self._value()
        if found := self._take(_BEFORE_SELECTOR):
            selector = self._selector()
            if selector is None:
                raise self._error("a selector")
            return Match(selector, Operator.NOT_IN if found[1] else Operator.IN, value)
        raise self._error("an operator")

    def _selector(self) -> tuple[str, ...] | None:
        first = self._take(_IDENTIFIER)
        if first is None:
            return None
        parts = [first[0]]
        while (part := self._dotted() or self._index()) is not None:
            parts.append(part)
        return tuple(parts)

    def _dotted(self) -> str | None:
        if not self._text.startswith(".", self._at):
            return None
        self._at += 1
        identifier = self._take(_IDENTIFIER)
        if identifier is None:
            raise self._error("a name")
        return identifier[0]

    def _index(self) -> str | None:
        if not self._take(_OPEN_INDEX):
            return None
        text = self._string()
        if text is None or not self._take(_CLOSE_INDEX):
            raise self._error('a quoted name and "]"')
        return text

    def _value(self) -> str:
        selector = self._selector()
        if selector is not None:
            return ".".join(selector)
        if number := self._take(_NUMBER):
            return number[0]
        text = self._string()
        if text is None:
            raise self._error("a value")
        return text

    def _string(self) -> str | None:
        found = self._take(_STRING)
        if found is None:
            return None
        return found[1].replace("\r", "") if found[1] is not None else _unquoted(found[2])

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _error(self, expected: str) -> BexprError:
        rest = self._text[self._at :]
        where = f"before {rest[:20]!r}" if rest else "at the end"
        return BexprError(f"expected {expected} {where} of the filter {self._text!r}")


def _joined(conjunction: bool, operands: Sequence[Node]) -> Node:
    """A tree as flat as it can be: a filter of a thousand alternatives must not be a thousand calls deep."""
    if len(operands) == 1:
        return operands[0]
    middle = len(operands) // 2
    return Binary(conjunction, _joined(conjunction, operands[:middle]), _joined(conjunction, operands[middle:]))


_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))|[^\\\n]")
_SIMPLE_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def _unquoted(body: str) -> str:
    """Resolve the escapes of a Go string literal (https://go.dev/ref/spec#String_literals)."""
    content = bytearray()
    at = 0
    while at < len(body):
        found = _ESCAPE.match(body, at)
        if found is None:
            raise BexprError(f'the string "{body}" has an escape or a line break that strings cannot have')
        content += _escaped_bytes(found, body)
        at = found.end()
    return content.decode("utf-8", "surrogateescape")


def _escaped_bytes(found: re.Match[str], body: str) -> bytes:
    simple, hexadecimal, octal, short, long = found.groups()
    try:
        if simple:
            return _SIMPLE_ESCAPES[simple].encode()
        if hexadecimal or octal:
            return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8)])
        if short or long:
            return chr(int(short or long, 16)).encode()
        return found[0].encode("utf-8", "surrogateescape")
    except ValueError as error:
        raise BexprError(f'the string "{body}" has an escape that is no character') from error
