"""``consul-tgw unlink``."""

from __future__ import annotations

from pathlib import Path

import click

from plugin.cli.follow_options import follow_options
from plugin.cli.link_output import EXIT_CODES, Showing, WaitFor, perform
from plugin.consul.client import ConsulClient
from plugin.linking.edit import Refused
from plugin.linking.plan import Plan, plan_unlink
from plugin.linking.request import name_reasons
from plugin.linking.writer import find


@click.command(
    epilog=EXIT_CODES,
    short_help="Take an external service out of a gateway; --purge removes it all.",
)
@click.argument("name")
@click.option("--purge", is_flag=True, help="Also remove the instances and intentions that `link` has written.")
@follow_options
def unlink(
    name: str,
    gateway: str,
    purge: bool,
    dry_run: bool,
    as_json: bool,
    wait_s: float,
    no_wait: bool,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """Take the service NAME out of the gateway's terminating-gateway entry.

    Its instances and intentions stay unless --purge is given; then those go that carry the mark managed-by=consul-tgw,
    and nothing else. An intention that `link --replace` had overridden does not come back.

    \b
    consul-tgw unlink billing-db
    consul-tgw unlink billing-db --purge --dry-run
    """

    async def planner(client: ConsulClient) -> Plan:
        if reasons := tuple(name_reasons(name, gateway)):
            raise Refused(*reasons)
        return plan_unlink(name, gateway, await find(client, name, gateway), purge=purge)

    waiting = WaitFor(
        service=name,
        gateway=gateway,
        served=False,
        wait_s=0.0 if no_wait else wait_s,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
    )
    return perform(planner, Showing(dry_run=dry_run, as_hcl=False, as_json=as_json), waiting)
