"""``--dns-server``, of every command that resolves hostnames of external services."""

from __future__ import annotations

from collections.abc import Iterable

import click

from plugin.addresses import HostPort

dns_server_option = click.option(
    "--dns-server",
    multiple=True,
    metavar="IP:PORT",
    help="Resolves hostnames of external services; may be repeated. Default: the name servers of /etc/resolv.conf.",
)


def dns_servers(texts: Iterable[str]) -> tuple[HostPort, ...]:
    """:raises ConfigError: when one is not an address and a port."""
    return tuple(HostPort.parse(text, what="--dns-server") for text in texts)
