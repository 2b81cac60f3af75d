"""Reads config entries as people write them, HCL or JSON: files given to the command, text typed into the dashboard."""

from __future__ import annotations

import json
from typing import Any

from plugin.errors import ConfigError


def read_entries(text: str, where: str) -> list[Any]:
    """One entry, or in JSON a list of them. :raises ConfigError: when it is neither."""
    stripped = text.lstrip("\ufeff \t\r\n")
    if not stripped:
        raise ConfigError(f"{where} is empty")
    if stripped[0] in "{[":
        try:
            read = json.loads(stripped)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where} is not JSON: {error}") from error
        return read if isinstance(read, list) else [read]
    return [_read_hcl(text, where)]


def _read_hcl(text: str, where: str) -> Any:
    import hcl2  # takes a fifth of a second
    from hcl2.utils import SerializationOptions

    try:
        read = hcl2.loads(text, serialization_options=SerializationOptions(with_comments=False))
    except Exception as error:  # the library's own kinds are those of its parser
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = "if Consul takes it, give it as JSON (`consul config read` prints it so)"
        raise ConfigError(f"{where} is not read as HCL: {what}; {hint}") from error
    return _plain(read, where, "")


def _plain(value: Any, where: str, field: str) -> Any:
    """Texts without their quotes, blocks as objects. :raises ConfigError: for expressions, which Consul has not."""
    if isinstance(value, dict):
        return {
            (name := _text(key, where, key)): _plain(inner, where, name)
            for key, inner in value.items()
            if key != "__is_block__"
        }
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], dict) and "__is_block__" in value[0]:
            return _plain(value[0], where, field)
        return [_plain(inner, where, field) for inner in value]
    return _text(value, where, field) if isinstance(value, str) else value


def _text(value: str, where: str, field: str) -> str:
    if not value.startswith('"'):
        if field is value or field == "":
            return value
        raise ConfigError(f"{where}: the value of {field} is {value[:40]!r}; write it as a text in quotes, or a number")
    try:
        read: str = json.loads(value)
    except ValueError:
        raise ConfigError(f"{where}: the text of {field} cannot be read; give the entry as JSON") from None
    return read
