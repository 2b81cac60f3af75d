"""The secret that changes something through the admin API: where it comes from, and who may know it."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from plugin.errors import ConfigError

VARIABLE = "CONSUL_TGW_ADMIN_TOKEN"
SHORTEST = 16
_OTHERS = stat.S_IRWXO | stat.S_IWGRP


class AdminToken:
    """Says whether a request may change something. Never shows the secret."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def __repr__(self) -> str:
        return "AdminToken(<redacted>)"

    def admits(self, authorization: str) -> bool:
        """Whether this ``Authorization`` header carries it (RFC 6750 section 2.1); takes the same time for any."""
        given = presented(authorization)
        return bool(given) and hmac.compare_digest(given.encode(), self._secret)


def presented(authorization: str) -> str:
    """The token of an ``Authorization`` header, whoever it belongs to; empty when there is none."""
    scheme, _, given = authorization.partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def read_secret(file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The secret of ``file``, else of the variable; empty when there is neither.

    :raises ConfigError: when it cannot be read, is too short to be one, or others may read it.
    """
    if file is None:
        secret = environment.get(VARIABLE, "").strip()
        return _checked(secret, VARIABLE) if secret else ""
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8", errors="strict").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--admin-token-file {file} cannot be read: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(f"--admin-token-file {file} is open to other users; run chmod 600 {file}")
    return _checked(text, f"--admin-token-file {file}")


def _checked(secret: str, where: str) -> str:
    if len(secret) < SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ConfigError(
            f"{where} must hold at least {SHORTEST} printable ASCII characters without spaces;"
            " `openssl rand -hex 32` makes a good one"
        )
    return secret
