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


def _shown(key: Any, value: Any) -> Any:
    if key in _SECRET and value:
        return REDACTED
    return _without_secrets(value) if key == "keys_json" and value else _redacted(value)


def _without_secrets(keys_json: str) -> str:
    """A key set, where a key that is shared with whoever makes tokens is not shown (RFC 7518 section 6.4)."""
    found = msgspec.json.decode(keys_json)
    keys = [{**key, "k": REDACTED} if "k" in key else key for key in found["keys"]]
    return msgspec.json.encode({"keys": keys}).decode()


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shown(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner) for inner in value]
    return value
