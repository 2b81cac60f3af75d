"""``consul-tgw acl-policy``."""

from __future__ import annotations

import asyncio

import click

from plugin.acl_policy import Policy, read_policy
from plugin.consul.client import ConsulClient
from plugin.linking.request import DEFAULT_GATEWAY
from plugin.settings import ConsulSettings


@click.command("acl-policy")
@click.option(
    "--service",
    default=DEFAULT_GATEWAY,
    show_default=True,
    metavar="NAME",
    help="The gateway's service name.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same policy as JSON, which Consul takes as well.")
def acl_policy(service: str, as_json: bool) -> int:
    """Print the smallest ACL policy with which a gateway serves the services that are linked now.

    Links and intentions are read from Consul, with a token that may read them: an operator's. Nothing is changed. After
    a service was linked, print it again and update the policy; a running gateway goes on from there by itself.

    \b
    consul-tgw acl-policy --service my-gateway | consul acl policy create -name my-gateway -rules -
    consul acl token create -policy-name my-gateway
    consul-tgw acl-policy --service my-gateway | consul acl policy update -name my-gateway -rules -

    Exit code: 0 printed, 2 Consul cannot be asked or does not allow it.
    """
    policy = asyncio.run(_read(service))
    click.echo(policy.json() if as_json else policy.hcl(), nl=False)
    return 0


async def _read(service: str) -> Policy:
    async with ConsulClient(ConsulSettings.from_environment()) as client:
        return await read_policy(client, service)
