"""Where a request carries a token: headers, query parameters and cookies, as a provider's ``Locations`` say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from proxy.http.message import RequestHead
from proxy.rules import TokenLocation


class Ambiguous(Exception):
    """Nobody can say which token is meant. The text names the place."""


@dataclass(frozen=True, slots=True)
class Found:
    token: bytes
    removed: frozenset[bytes]
    """Headers that carry it and that the external service does not get."""


def find(head: RequestHead, locations: tuple[TokenLocation, ...]) -> Found | None:
    """Return the one token; ``None`` when there is none.

    :raises Ambiguous: when there are several, since the external service might look at another one.
    """
    tokens: set[bytes] = set()
    removed: set[bytes] = set()
    for location in locations:
        here = list(_tokens_at(head, location))
        if here and location.header and not location.forward:
            removed.add(location.header.lower().encode())
        tokens.update(here)
        if len(tokens) > 1:
            raise Ambiguous(f"the request carries more than one token ({_named(location)})")
    return Found(tokens.pop(), frozenset(removed)) if tokens else None


def text(locations: tuple[TokenLocation, ...]) -> str:
    """Where a token belongs, for whoever forgot it."""
    return " or ".join(map(_named, locations))


def _named(location: TokenLocation) -> str:
    if location.header:
        return f"header {location.header}"
    if location.query_parameter:
        return f"query parameter {location.query_parameter}"
    return f"cookie {location.cookie}"


def _tokens_at(head: RequestHead, location: TokenLocation) -> Iterator[bytes]:
    if location.header:
        yield from _in_header(head, location)
    elif location.query_parameter:
        name = location.query_parameter.encode()
        for part in head.target.partition(b"?")[2].split(b"&"):
            key, _, value = part.partition(b"=")
            if value and unquote_to_bytes(key) == name:
                yield unquote_to_bytes(value)
    else:
        name = location.cookie.encode()
        for cookies in head.values(b"cookie"):
            for cookie in cookies.split(b";"):
                key, _, value = cookie.strip(b" \t").partition(b"=")
                if key == name and (value := value.strip(b'"')):
                    yield value


def _in_header(head: RequestHead, location: TokenLocation) -> Iterator[bytes]:
    values = head.values(location.header.lower().encode())
    prefix = location.prefix.strip().lower().encode()
    tokens = [value[len(prefix) :].strip(b" \t") for value in values if value.lower().startswith(prefix)]
    if tokens and len(values) > 1:
        raise Ambiguous(f"the header {location.header} is there {len(values)} times")
    return filter(None, tokens)
