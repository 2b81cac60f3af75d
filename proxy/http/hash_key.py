"""What the hash policies of a service-resolver make of a request: the same key, the same endpoint.

Policies are combined in the operator's order; one that finds nothing is left out, and a terminal one that finds
something ends it, as in Envoy (``RouteAction.HashPolicy``). A cookie with a lifetime that a caller does not have is
given to it: what is hashed is then its new value, a random one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from proxy.http.message import Headers, RequestHead
from proxy.model import HashPolicy, HashSource

_LONGEST = 64


def hash_key(policies: Iterable[HashPolicy], client_ip: str, head: RequestHead) -> tuple[str, Headers]:
    """The key, and the cookies that the response has to set.

    The key is empty when no policy finds anything: then any endpoint will do.
    """
    found: list[bytes] = []
    given: Headers = []
    for policy in policies:
        value = _value(policy, client_ip, head)
        if value is None and policy.source is HashSource.COOKIE and policy.cookie_lifetime_s is not None:
            value = os.urandom(8).hex().encode()
            given.append((b"set-cookie", _cookie(policy, value)))
        if value is not None:
            found.append(value)
            if policy.terminal:
                break
    if not found:
        return "", given
    key = b"\0".join(found)
    # Keys are remembered, and a client chooses how long they are.
    text = key.decode("latin-1") if len(key) <= _LONGEST else hashlib.blake2b(key, digest_size=16).hexdigest()
    return text, given


def _cookie(policy: HashPolicy, value: bytes) -> bytes:
    text = f'{policy.name}="{value.decode()}"'
    if policy.cookie_lifetime_s:
        text += f"; Max-Age={policy.cookie_lifetime_s:.0f}"
    if policy.cookie_path:
        text += f"; Path={policy.cookie_path}"
    return f"{text}; HttpOnly".encode()


def _value(policy: HashPolicy, client_ip: str, head: RequestHead) -> bytes | None:
    name = policy.name.encode()
    match policy.source:
        case HashSource.SOURCE_IP:
            return client_ip.encode()
        case HashSource.HEADER:
            values = [head.authority] if name in (b":authority", b"host") else head.values(name.lower())
            return b",".join(sorted(values)) if values else None
        case HashSource.COOKIE:
            return next((value for key, value in cookies(head) if key == name), None)
        case HashSource.QUERY_PARAMETER:
            return next((value for key, value in _query(head) if key == name), None)


def cookies(head: RequestHead) -> Iterator[tuple[bytes, bytes]]:
    for line in head.values(b"cookie"):
        for pair in line.split(b";"):
            name, mark, value = pair.strip().partition(b"=")
            if mark:
                yield name, value.strip(b'"')


def _query(head: RequestHead) -> Iterator[tuple[bytes, bytes]]:
    for pair in head.target.partition(b"?")[2].split(b"&"):
        name, _, value = pair.partition(b"=")
        yield unquote_to_bytes(name), value
