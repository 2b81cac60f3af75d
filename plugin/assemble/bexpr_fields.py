"""The selectors that a Filter may have, and their types: read off the types of a health entry.

What Consul lets a filter name is its ``CheckServiceNode`` without the tenancy of instances and without what is free in
form. :mod:`plugin.consul.api` declares just these fields, so they are not listed a second time. This module is pure.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import inspect

from plugin.consul.api import HealthEntry


class Scalar(enum.Enum):
    TEXT = "text"
    NUMBER = "number"
    TRUTH = "truth"


@dataclass(frozen=True, slots=True)
class List:
    element: Kind


@dataclass(frozen=True, slots=True)
class Map:
    """From text."""

    value: Kind


@dataclass(frozen=True, slots=True)
class Struct:
    fields: Mapping[str, tuple[str, Kind]]
    """Consul's field name to this program's attribute and its type."""


Kind = Scalar | List | Map | Struct

_NOT_FOR_FILTERS = frozenset({("Instance", "Namespace"), ("Instance", "Partition")})
"""Type and field: Consul Enterprise asks for these with the query, not with a filter."""


def _kind(declared: inspect.Type) -> Kind:
    match declared:
        case inspect.StrType():
            return Scalar.TEXT
        case inspect.IntType():
            return Scalar.NUMBER
        case inspect.BoolType():
            return Scalar.TRUTH
        case inspect.VarTupleType(item_type=item):
            return List(_kind(item))
        case inspect.DictType(value_type=value):
            return Map(_kind(value))
        case inspect.UnionType(types=types):
            (present,) = (one for one in types if not isinstance(one, inspect.NoneType))
            return _kind(present)
        case inspect.StructType(cls=cls, fields=fields):
            allowed = (one for one in fields if (cls.__name__, one.encode_name) not in _NOT_FOR_FILTERS)
            return Struct({one.encode_name: (one.name, _kind(one.type)) for one in allowed})
    raise TypeError(f"a filter cannot be evaluated on {declared}")


ENTRY = _kind(inspect.type_info(HealthEntry))
"""One row of ``/v1/health/service/:service``."""
