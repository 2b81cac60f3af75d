"""Where config entries are kept: in the primary datacenter, whichever one is asked to write them.

What a secondary datacenter has of them are copies. They may be older, and their indexes are of its own: a check-and-set
with one of those is refused for ever, since Consul compares it in the primary one.
"""

from __future__ import annotations

import msgspec

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.consul.endpoints import Params
from plugin.errors import ConsulForbidden


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    datacenter: str = ""
    primary_datacenter: str = ""


class _Agent(msgspec.Struct, frozen=True):
    config: _Config = msgspec.field(name="Config", default=_Config())


async def place_of_entries(client: ConsulClient) -> Params:
    """The parameters with which config entries are read where they are kept: none in the primary datacenter.

    Only an agent that knows several datacenters is asked which one that is (``/v1/agent/self``), since not every token
    may ask it.

    :raises ConsulForbidden: when the token may not, and it matters.
    :raises ConsulError, ConfigError: when Consul does not say.
    """
    known = await client.get(endpoints.CATALOG_DATACENTERS, type=tuple[str, ...])
    if len(known) < 2:
        return ()
    try:
        config = (await client.get(endpoints.AGENT_SELF, type=_Agent)).config
    except ConsulForbidden as error:
        raise ConsulForbidden(
            f"config entries are written in the primary datacenter, and this token may not ask whether that is"
            f" {' or '.join(sorted(known))}: {error}",
            error.rule,
            error.accessor,
        ) from error
    primary = config.primary_datacenter
    return (("dc", primary),) if primary and primary != config.datacenter else ()
