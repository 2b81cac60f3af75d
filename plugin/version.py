"""The version of the running program."""

from __future__ import annotations

from importlib import metadata


def version_text() -> str:
    """Of the installed distribution; of a source tree that is not installed, ``unreleased``."""
    try:
        return metadata.version("consul-tgw")
    except metadata.PackageNotFoundError:
        return "unreleased"
