"""Who the gateway takes a caller for: whoever its certificate says, and nobody else."""

from __future__ import annotations

from lab.actors import APPLICATION, HTTP, Actors
from lab.live import live_query
from lab.proofs.proof import holds
from lab.topology import Federation, Role

_ANOTHER = "admin"
"""A service that is let in for the time of a proof, and that nobody is."""


async def the_gateway_sees_who_calls(actors: Actors) -> str:
    """The identity of the far client, from its certificate; the address is the mesh gateway's."""
    topology = actors.running.topology
    here, there = await actors.here.trust_domain(), await actors.callers_trust_domain()
    peered = actors.running.federation is Federation.PEERING
    holds((here != there) == peered, f"trust domains are {here} and {there}")
    mesh = {topology.lan(name) for name in topology.having(Role.MESH_GATEWAY, actors.datacenter)}
    identity = await actors.identity(APPLICATION)
    async with live_query(actors) as live:
        source, client = live.connection["source"], live.connection["client"].rpartition(":")[0]
    holds(source == identity, f"the source is {source}, not {identity}")
    holds(client in mesh, f"the client is {client}, which is no mesh gateway of {actors.datacenter}: {sorted(mesh)}")
    return f"{live.gateway.host.name} has had a connection of {identity} from the mesh gateway {client}"


async def a_header_makes_nobody_another(actors: Actors) -> str:
    """HTTP of peers names its caller in a header that mesh gateways write: an application's own is none."""
    another = await actors.identity(_ANOTHER)
    forged = f"X-Forwarded-Client-Cert: By=spiffe://nobody;Hash=00;URI={another}"
    await actors.allow(HTTP, _ANOTHER)
    await actors.until_refused(HTTP)
    status = await actors.application.http_status("/", forged)
    holds(status == "403", f"a request that claims to be of {another}, which is let in, was answered with {status}")
    await actors.allow(HTTP)
    await actors.until_reached(HTTP)
    page, own = await actors.application.http("/", forged), await actors.identity(APPLICATION)
    holds(page.endswith(f" for {own}\n"), f"the service was told of another caller than {own}: {page!r}")
    return f"as {_ANOTHER}, which was let in, web was refused; as web, the service was told of {own}"
