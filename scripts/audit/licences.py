"""Which licence each installed package states, and whether the gateway may be released with it.

A package that states nothing that is understood is refused: somebody has to look, and then name it here.
"""

from __future__ import annotations

from email.message import Message
from importlib import metadata

ALLOWED = frozenset(
    {
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CNRI-Python",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Python-2.0",
        "Unlicense",
    }
)
"""SPDX identifiers. All of them let a program that uses the package be passed on under its own licence."""

_BY_OTHER_NAME = {
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What metadata older than SPDX expressions (PEP 639) says, in licence fields and classifiers."""
_READ_BY_US = {"google-re2": "BSD-3-Clause"}
"""Packages whose metadata does not say which licence of a family it is; their licence files do."""


def stated(package: Message) -> str | None:
    """The licence in a package's metadata as an SPDX expression, or None when it is not understood."""
    expression = package.get("License-Expression")
    if expression:
        return str(expression)
    text = str(package.get("License") or "").strip()
    classifiers = [
        str(each).rpartition(" :: ")[2] for each in package.get_all("Classifier") or () if each.startswith("License ::")
    ]
    names = [text] if text in ALLOWED or text in _BY_OTHER_NAME else classifiers
    if not names or not all(name in ALLOWED or name in _BY_OTHER_NAME for name in names):
        return _READ_BY_US.get(str(package.get("Name")))
    return " AND ".join(_BY_OTHER_NAME.get(name, name) for name in names)


def allowed(expression: str) -> bool:
    """Whether one of its alternatives (``OR``) needs allowed licences only. Brackets and exceptions are refused."""
    if "(" in expression or " WITH " in expression:
        return False
    return any(
        all(part.strip() in ALLOWED for part in alternative.split(" AND ")) for alternative in expression.split(" OR ")
    )


def fault(name: str, expression: str | None) -> str | None:
    if expression is None:
        return f"{name} states no licence that is understood: read its files, then add it to scripts/audit/licences.py"
    if not allowed(expression):
        return f"{name} is under {expression}, which is not allowed"
    return None


def of_installed(name: str) -> tuple[str, str | None]:
    """Version and licence of an installed package. :raises PackageNotFoundError: when it is not installed."""
    found = metadata.distribution(name)
    message = found.metadata
    assert isinstance(message, Message)
    return found.version, stated(message)
