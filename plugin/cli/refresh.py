"""``consul-tgw refresh``."""

from __future__ import annotations

from pathlib import Path

import click

from plugin.cli.admin_client import change


@click.command()
@click.option("--service", default="", metavar="NAME", help="Service name or ID of the gateway, when several run here.")
@click.option("--admin-address", default="", metavar="IP:PORT|unix:///PATH", help="Of the gateway that is meant.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="PATH", help="As of consul-tgw run.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files.")
def refresh(service: str, admin_address: str, admin_token_file: Path | None, runtime_dir: Path | None) -> None:
    """Let a running gateway read the files of all links again, and open its access log again, as SIGHUP does.

    It needs the admin token: that of --admin-token-file or CONSUL_TGW_ADMIN_TOKEN, or the one that the gateway has put
    into its runtime directory, which its own user and root can read.
    """
    change(
        "/api/refresh",
        service=service,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
        token_file=admin_token_file,
    )
