"""Fields of the structures that answers and log lines consist of: names, types as JSON has them, docstrings."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from scripts.reference.text import prose

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", bytes: "string", type(None): "null"}


def is_structure(kind: object) -> bool:
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def name_of(kind: type) -> str:
    """What a structure is called on the page: two parts of the program have one called ``Traffic``."""
    return ("Dashboard" if kind.__module__.startswith("plugin.admin.dashboard.") else "") + kind.__name__


def described(kind: type) -> Iterator[tuple[str, object, str]]:
    """Name in JSON, type and docstring of each field; those of parents first."""
    hints = _hints(kind)
    texts = {name: text for parent in reversed(kind.__mro__) for name, text in _docstrings(parent).items()}
    if issubclass(kind, msgspec.Struct):
        tag = kind.__struct_config__.tag
        if tag is not None and kind.__struct_config__.tag_field is not None:
            yield kind.__struct_config__.tag_field, str, f"`{tag}`"
        for one in msgspec.structs.fields(kind):
            yield one.encode_name, hints[one.name], texts.get(one.name, "")
    elif dataclasses.is_dataclass(kind):
        for field in dataclasses.fields(kind):
            yield field.name, hints[field.name], texts.get(field.name, "")


def in_json(kind: object) -> str:
    """What JSON has for values of the type ``kind``; structures by their names."""
    if kind in _PLAIN and isinstance(kind, type):
        return _PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(f"`{one.value}`" for one in kind)
    if is_structure(kind):
        assert isinstance(kind, type)
        name = name_of(kind)
        return f"[{name}](#{name.lower()})"
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(in_json(one) for one in inner)
    if origin is tuple and (len(inner) != 2 or inner[1] is not Ellipsis):
        return "list of " + ", ".join(in_json(one) for one in inner)
    if origin in (tuple, list, frozenset, set):
        return f"list of {in_json(inner[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"object of {in_json(inner[1])}"
    return "any JSON"


def structures_in(kind: object) -> Iterator[type]:
    """The structures that values of ``kind`` directly have in them, or are."""
    if is_structure(kind):
        assert isinstance(kind, type)
        yield kind
    for inner in typing.get_args(kind):
        yield from structures_in(inner)


def _hints(kind: type) -> dict[str, Any]:
    """Names that a module imports for type checkers alone are of no field that is sent."""
    return typing.get_type_hints(kind, vars(sys.modules[kind.__module__]))


def _docstrings(kind: type) -> dict[str, str]:
    """By attribute: the string below it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):
        return {}
    (definition,) = tree.body
    if not isinstance(definition, ast.ClassDef):
        return {}
    found = {}
    for one, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[one.target.id] = prose(below.value.value)
    return found
