"""The version of the running program, and the form of it that workers run."""

from __future__ import annotations

from importlib import metadata

from proxy import compiled


def version_text() -> str:
    """Of the installed distribution; of a source tree that is not installed, ``unreleased``."""
    try:
        return metadata.version("consul-tgw")
    except metadata.PackageNotFoundError:
        return "unreleased"


def code_text() -> str:
    """What the modules of a worker that is started now run as."""
    try:
        return str(compiled.find())
    except compiled.CodeError as error:
        return f"nothing: {error}"
