"""What is written as HCL is read back by an independent reader as what it was."""

from __future__ import annotations

import json
from typing import Any

from fuzz.draw import Draw
from plugin.linking.hcl import to_hcl

CODE = ("plugin.linking.hcl",)


def run(data: bytes) -> None:
    entry = entry_of(Draw(data))
    assert _Reader(to_hcl(entry)).attributes("") == entry


def entry_of(draw: Draw) -> dict[str, Any]:
    return {key: _value(draw, 0) for key in _keys(draw)}


def _keys(draw: Draw) -> list[str]:
    return [draw.choice(("Kind", "Name", "Services", "")) or draw.text() for _ in range(draw.below(4))]


def _value(draw: Draw, depth: int) -> Any:
    kind = draw.below(6 if depth < 3 else 4)
    if kind == 4:
        return [_value(draw, depth + 1) for _ in range(draw.below(4))]
    if kind == 5:
        return {key: _value(draw, depth + 1) for key in _keys(draw)}
    return (draw.text, lambda: draw.below(256), draw.truth, lambda: draw.text(4) + "${" + draw.text(4))[kind]()


class _Reader:
    """The subset of HCL 1 that is a list of attributes. A raw ``${`` in a string is refused: it would interpolate."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def attributes(self, end: str) -> dict[str, Any]:
        found = {}
        while not self._ended(end):
            key = self._string() if self._next() == '"' else self._word()
            self._expect("=")
            found[key] = self._value()
        return found

    def _ended(self, end: str) -> bool:
        if self._next() != end:
            return False
        self._at += len(end)
        return True

    def _next(self) -> str:
        while self._text[self._at : self._at + 1] in {" ", "\n"}:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _expect(self, character: str) -> None:
        assert self._next() == character
        self._at += 1

    def _value(self) -> Any:
        match self._next():
            case '"':
                return self._string()
            case "{":
                self._at += 1
                return self.attributes("}")
            case "[":
                self._at += 1
                return self._elements()
            case _:
                word = self._word()
                return {"true": True, "false": False}[word] if word.isalpha() else int(word)

    def _elements(self) -> list[Any]:
        found = []
        while not self._ended("]"):
            found.append(self._value())
            if self._next() == ",":
                self._at += 1
        return found

    def _word(self) -> str:
        start = self._at
        while (character := self._text[self._at : self._at + 1]) and (character.isalnum() or character in "_-"):
            self._at += 1
        assert self._at > start
        return self._text[start : self._at]

    def _string(self) -> str:
        start = self._at
        self._at += 1
        while (character := self._text[self._at]) != '"':
            assert character != "\n"
            assert not self._text.startswith("${", self._at)
            self._at += 2 if character == "\\" else 1
        self._at += 1
        text: str = json.loads(self._text[start : self._at])
        return text
