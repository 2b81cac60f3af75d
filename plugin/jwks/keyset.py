"""A JSON Web Key Set (RFC 7517 section 5) as workers get it: the keys that can verify a signature, and no more.

Pure. Which keys can is for those to say who will verify with them (:mod:`proxy.http.policy.token_keys`). What a key
says about its own certificates or its private half is left out, and no text quotes a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from plugin.consul.strict import NotUnderstood
from proxy.http.policy.token_keys import read_keys

LARGEST_BYTES = 1 << 20
"""Of a key set. A large provider's has some 20 KiB."""
MOST_KEYS = 100
"""As many as workers take."""

_COMMON = ("kty", "use", "key_ops", "alg", "kid")
_MEMBERS = {
    "RSA": (*_COMMON, "n", "e"),
    "EC": (*_COMMON, "crv", "x", "y"),
    "OKP": (*_COMMON, "crv", "x"),
    "oct": (*_COMMON, "k"),
}
"""RFC 7518 section 6 and RFC 8037 section 2, without private members; that of ``oct`` is all that it has."""


@dataclass(frozen=True, slots=True)
class KeySet:
    json: str
    """For :class:`proxy.rules.TokenProvider`; the same for the same keys."""
    keys: int
    unusable: int
    """Keys that were left out: for encryption, of a kind that is not known, or broken."""


class _Document(msgspec.Struct, frozen=True):
    keys: tuple[Any, ...]


def read_key_set(content: bytes) -> KeySet:
    """:raises NotUnderstood: when it is none, or no key of it can verify a signature."""
    if len(content) > LARGEST_BYTES:
        raise NotUnderstood(f"the key set has {len(content)} bytes, more than {LARGEST_BYTES}")
    try:
        document = msgspec.json.decode(content, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without the text of the error: it may quote what was read, which may be any file or page.
        raise NotUnderstood('it is no JSON Web Key Set: {"keys": [...]} is wanted') from None
    if len(document.keys) > MOST_KEYS:
        raise NotUnderstood(f"the key set has {len(document.keys)} keys, more than {MOST_KEYS}")
    usable = list(_usable(document.keys))
    if not usable:
        raise NotUnderstood(f"none of the {len(document.keys)} keys in it can verify a signature")
    return KeySet(
        json=msgspec.json.encode({"keys": usable}).decode(),
        keys=len(usable),
        unusable=len(document.keys) - len(usable),
    )


def _usable(keys: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for key in keys:
        kind = key.get("kty") if isinstance(key, dict) else None
        members = _MEMBERS.get(kind) if isinstance(kind, str) else None
        if members is None:
            continue
        public = {name: key[name] for name in members if name in key}
        if read_keys(msgspec.json.encode({"keys": [public]}).decode()).keys:
            yield public
