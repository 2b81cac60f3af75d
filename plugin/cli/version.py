"""``consul-tgw version``."""

from __future__ import annotations

import platform

import click

from plugin.version import code_text, version_text


@click.command()
def version() -> None:
    """Print the version, and those of the parts that matter."""
    from cryptography.hazmat.backends.openssl import backend

    click.echo(f"consul-tgw {version_text()}")
    click.echo(f"python {platform.python_version()} ({platform.python_implementation()})")
    click.echo(backend.openssl_version_text())
    click.echo(f"workers run {code_text()}")
