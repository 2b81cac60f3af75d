"""Writes config entries as HCL, in the form that ``consul config write`` reads. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_INDENT = "  "


def to_hcl(entry: Mapping[str, Any]) -> str:
    """One attribute a line; ``null`` and what is empty by omission are left out."""
    return "".join(f"{_key(key)} = {_value(value, '')}\n" for key, value in entry.items() if value is not None)


def _key(key: str) -> str:
    return key if _IDENTIFIER.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    # A raw ${ would begin an interpolation, in which quotes do not end the string.
    return json.dumps(text, ensure_ascii=False).replace("${", "\\u0024{")


def _value(value: object, indent: str) -> str:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return _object(value, indent)
    if isinstance(value, list | tuple):
        return _list(value, indent)
    return json.dumps(value)


def _object(value: Mapping[str, Any], indent: str) -> str:
    inner = indent + _INDENT
    lines = [f"{inner}{_key(key)} = {_value(one, inner)}\n" for key, one in value.items() if one is not None]
    return "{\n" + "".join(lines) + indent + "}" if lines else "{}"


def _list(value: list[Any] | tuple[Any, ...], indent: str) -> str:
    inner = indent + _INDENT
    if not any(isinstance(one, Mapping | list | tuple) for one in value):
        return f"[{', '.join(_value(one, inner) for one in value)}]"
    return "[\n" + "".join(f"{inner}{_value(one, inner)},\n" for one in value) + indent + "]"
