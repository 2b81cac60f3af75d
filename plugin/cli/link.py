"""``consul-tgw link``."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from plugin.cli.follow_options import follow_options
from plugin.cli.link_output import EXIT_CODES, Planner, Showing, WaitFor, perform
from plugin.consul.client import ConsulClient
from plugin.linking.edit import Refused
from plugin.linking.plan import Plan, plan_link
from plugin.linking.request import LinkRequest, parse_target
from plugin.linking.writer import callers_by_default, find


@click.command(
    epilog=EXIT_CODES,
    short_help="Bring an external service into the mesh: catalog, gateway entry, intentions.",
)
@click.argument("name")
@click.argument("target", metavar="ADDRESS:PORT")
@click.option("--allow", multiple=True, metavar="SOURCE", help="A service that may call it, or *; may be repeated.")
@click.option("--ca", "ca_file", default="", metavar="FILE", help="Speak TLS to it, verified against this CA.")
@click.option("--cert", "cert_file", default="", metavar="FILE", help="The gateway's client certificate for it.")
@click.option("--key", "key_file", default="", metavar="FILE", help="The private key of --cert.")
@click.option("--sni", default="", metavar="NAME", help="The name to ask for, and to find in its certificate.")
@click.option("--create", is_flag=True, help="Create the gateway's terminating-gateway entry if there is none.")
@click.option("--node", default="", metavar="NAME", help="Catalog node of the instance. [default: external-ADDRESS]")
@click.option("--id", "instance_id", default="", metavar="ID", help="ID of the instance. [default: NAME]")
@click.option("--replace", "replaces", is_flag=True, help="Replace a link, an instance or an intention that differs.")
@click.option(
    "--hcl", "as_hcl", is_flag=True, help="Print config entries as HCL and registration as JSON; write nothing."
)
@follow_options
def link(
    dry_run: bool,
    as_hcl: bool,
    as_json: bool,
    wait_s: float,
    no_wait: bool,
    admin_address: str,
    runtime_dir: Path | None,
    **asked: Any,
) -> int:
    """Bring the service NAME at ADDRESS:PORT into the mesh, through a gateway.

    It links NAME in the gateway's terminating-gateway entry, registers it in the catalog as an instance on an external
    node, and writes the intentions for --allow, in this order: nobody gets in before all is as asked. What other people
    have in these entries stays. Run again it changes nothing; run with another address it adds an instance.

    \b
    consul-tgw link billing-db 10.0.0.9:5432 --allow web
    consul-tgw link ldap ldap.example:636 --ca /etc/ssl/ldap-ca.pem --sni ldap.example --allow web

    Files are read by the gateway, where it runs: that they are not on this host is only a warning.
    """
    showing = Showing(dry_run=dry_run, as_hcl=as_hcl, as_json=as_json)
    waiting = WaitFor(
        service=asked["name"],
        gateway=asked["gateway"],
        served=True,
        wait_s=0.0 if no_wait else wait_s,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
    )
    return perform(_planner(asked), showing, waiting)


def _planner(asked: dict[str, Any]) -> Planner:
    async def plan(client: ConsulClient) -> Plan:
        wanted = request(asked)
        notes = [*file_warnings(wanted), *_address_warnings(wanted)]
        found = await find(client, wanted.service, wanted.gateway, wanted.node_name)
        planned = plan_link(wanted, found)
        if await callers_by_default(client, wanted.service):
            notes.append(
                f"services without an intention of their own may call {wanted.service}; `consul intention create -deny"
                f" '*' {wanted.service}` keeps them out"
            )
        elif not wanted.allow and found.intentions is None:
            notes.append(f"nobody may call {wanted.service} yet: --allow SOURCE lets a service in")
        return replace(planned, notes=planned.notes + tuple(notes))

    return plan


def request(asked: dict[str, Any]) -> LinkRequest:
    """:raises Refused: with everything that is wrong with the arguments."""
    reasons: tuple[str, ...] = ()
    host, port = "0.0.0.0", 1
    try:
        host, port = parse_target(asked["target"])
    except Refused as refused:
        reasons = refused.reasons
    wanted = LinkRequest(
        service=asked["name"],
        host=host,
        port=port,
        gateway=asked["gateway"],
        ca_file=asked["ca_file"],
        cert_file=asked["cert_file"],
        key_file=asked["key_file"],
        sni=asked["sni"],
        allow=tuple(asked["allow"]),
        node=asked["node"],
        id=asked["instance_id"],
        replace=asked["replaces"],
        create=asked["create"],
    )
    try:
        wanted.check()
    except Refused as refused:
        reasons += refused.reasons
    if reasons:
        raise Refused(*reasons)
    return wanted


def file_warnings(wanted: LinkRequest) -> list[str]:
    """The gateway may run elsewhere, so what this host has is no reason to refuse."""
    warnings = []
    for flag, name in (("--ca", wanted.ca_file), ("--cert", wanted.cert_file), ("--key", wanted.key_file)):
        path = Path(name)
        if name and not path.is_absolute():
            warnings.append(
                f"{flag} {name} is looked for in the working directory of the gateway; better write a full path"
            )
        elif name and (problem := _unreadable(path)):
            warnings.append(f"{flag} {name} cannot be read on this host ({problem}); the gateway must be able to")
    return warnings


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _address_warnings(wanted: LinkRequest) -> list[str]:
    try:
        loopback = ipaddress.ip_address(wanted.host).is_loopback
    except ValueError:
        loopback = wanted.host == "localhost"
    return [f"{wanted.host} is the host of whoever dials: the gateway's own"] if loopback else []
