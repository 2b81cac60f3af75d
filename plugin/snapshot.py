"""The state of the workers as JSON, for people: everything but private keys."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy.messages import Update

REDACTED = "<redacted>"
_SECRET = frozenset({"private_key_pem"})


def redacted_json(update: Update) -> bytes:
    """``update`` in the fields of :mod:`proxy.model`, with every private key replaced by :data:`REDACTED`."""
    return msgspec.json.encode(_redacted(msgspec.to_builtins(update, str_keys=True)))


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: REDACTED if key in _SECRET and inner else _redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value
