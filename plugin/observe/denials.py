"""Says which right is missing where Consul's answer does not: it hides instances without a word, and refuses intentions
for more than one reason. It asks one question more, and decides nothing."""

from __future__ import annotations

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.consul.transport import remedy
from plugin.errors import ConsulForbidden, GatewayError
from proxy.model import ServiceName


class Hidden(ConsulForbidden):
    """Consul left out all instances of a service, for want of ``service:read`` or of ``node:read``."""


async def of_instances(client: ConsulClient, name: ServiceName, problem: GatewayError) -> GatewayError:
    """``problem`` with the rule that is missing, if it is one of instances that are hidden."""
    if not isinstance(problem, Hidden):
        return problem
    rule = endpoints.NODE_READ_RULE if await _may_read(client, name) else endpoints.service_rule(name.name, "write")
    return _forbidden(client, f"Consul hides the instances of {name}", rule)


def of_some_instances(client: ConsulClient, name: ServiceName) -> ConsulForbidden:
    """The right to read some nodes is missing: that to read the service would show or hide all of its instances."""
    return _forbidden(client, f"Consul hides some instances of {name}", endpoints.NODE_READ_RULE)


async def of_intentions(client: ConsulClient, name: ServiceName, problem: ConsulForbidden) -> ConsulForbidden:
    """``problem`` with the rule that is missing, if the token is not unknown altogether.

    ``service:write``, which a gateway needs in any case, includes the intentions unless its rule withholds them."""
    if not problem.rule:
        return problem
    withheld = await _may_read(client, name)
    rule = endpoints.service_rule(name.name, "write", ', intentions = "read"' if withheld else "")
    return _forbidden(client, f"Consul refuses the intentions of {name}", rule)


def _forbidden(client: ConsulClient, what: str, rule: str) -> ConsulForbidden:
    accessor = client.transport.accessor
    return ConsulForbidden(what + remedy(rule, accessor), rule, accessor)


async def _may_read(client: ConsulClient, name: ServiceName) -> bool:
    """Whether the token has ``service:read``, by ``GET /v1/config/service-resolver/:name``, which needs no more."""
    try:
        await client.blocking_get(endpoints.config("service-resolver", name.name), endpoints.tenancy(name))
    except ConsulForbidden:
        return False
    except GatewayError:
        # Not known; the next refusal asks again.
        return True
    return True
