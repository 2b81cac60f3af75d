"""The last look at what leaves the machine: what is secret and should not have got here is taken out all the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

REDACTED = b"<redacted>"
SHORTEST = 8
"""Characters of a secret. What is shorter is found in any text."""
_VARIABLES = ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH", "CONSUL_TGW_ADMIN_TOKEN")
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_CREDENTIALS = re.compile(rb"([a-z][a-z0-9+.-]*://)[^/\s\"@]+@", re.IGNORECASE)
_BEARER = re.compile(rb"(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)


def secrets_of(environment: Mapping[str, str], files: Iterable[Path] = ()) -> frozenset[bytes]:
    """What this environment keeps to itself, with the content of ``files`` that can be read."""
    found = {environment.get(name, "") for name in _VARIABLES}
    found.add(environment.get("CONSUL_HTTP_AUTH", "").partition(":")[2])
    token_file = environment.get("CONSUL_HTTP_TOKEN_FILE", "")
    for path in (*files, *([Path(token_file)] if token_file else ())):
        try:
            found.add(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return frozenset(text.strip().encode() for text in found if len(text.strip()) >= SHORTEST)


def redacted(data: bytes, secrets: Iterable[bytes]) -> bytes:
    """``data`` without private keys, the known ``secrets``, user names and passwords in URLs, and bearer tokens."""
    data = _KEY.sub(REDACTED, data)
    # In JSON some characters of a secret are written otherwise.
    written = {form for secret in secrets for form in (secret, msgspec.json.encode(secret.decode())[1:-1])}
    for secret in sorted(written, key=len, reverse=True):
        data = data.replace(secret, REDACTED)
    return _BEARER.sub(rb"\1" + REDACTED, _CREDENTIALS.sub(rb"\1" + REDACTED + b"@", data))
