"""From an application in the cloud over two mesh gateways and this gateway to services outside the mesh: with real
parts, on the hosts of ``vagrant/topology.yaml``, made by the scripts of ``vagrant/provision``."""

from __future__ import annotations

import re

import pytest

from lab.actors import DATABASE, HTTP, Actors
from lab.lab import Lab
from lab.programs import SECRETS
from lab.proofs import PROOFS, Disproved, isolation
from lab.topology import LEGACY, Role

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("name", PROOFS)
async def test_proof(actors: Actors, name: str) -> None:
    assert await PROOFS[name](actors)


async def test_a_way_around_the_gateways_is_noticed(actors: Actors) -> None:
    """As the proof of isolation would have to fail when a host is on a network that is not for it."""
    web = actors.application.host
    (legacy,) = [actors.running.topology.hosts[name] for name in actors.running.topology.having(Role.LEGACY)]
    await web.run("ip", "route", "add", f"{legacy.addresses[LEGACY]}/32", "dev", "cloud")
    try:
        with pytest.raises(Disproved, match=r"cloud-app-1 has a route to legacy-1 .* share no network"):
            await isolation.only_gateways_meet(actors)
    finally:
        await web.run("ip", "route", "del", f"{legacy.addresses[LEGACY]}/32", "dev", "cloud")


async def test_tokens_have_the_rights_of_their_role_alone(actors: Actors) -> None:
    """The gateway's are those that `consul-tgw acl-policy` asks for now that its services are exported."""
    policy = await actors.here.consul("acl", "policy", "read", "-name", "terminating-gateway")
    ask = "export CONSUL_HTTP_TOKEN=$(<$0); exec consul-tgw acl-policy --service terminating-gateway"
    needed = await actors.here.host.run("bash", "-c", ask, f"{SECRETS}/management.token")
    assert needed.strip() in policy
    for rule in ('mesh = "read"', 'peering = "read"'):
        assert rule in policy
    write = 'curl -s -o /dev/null -w "%{http_code}" -H "X-Consul-Token: $(<$0)" -X PUT -d "$1" 127.0.0.1:8500/v1/config'
    entry = '{"Kind": "service-intentions", "Name": "billing-db", "Sources": [{"Name": "*", "Action": "allow"}]}'
    assert await actors.application.host.run("bash", "-c", write, "/etc/lab/web.token", entry) == "403"


async def test_agents_are_open_to_their_own_host_and_gossip_is_encrypted(actors: Actors) -> None:
    server = actors.running.topology.lan(actors.here.host.name)
    for port, answer in ((8500, "refused"), (8502, "refused"), (8300, "open")):
        tried = f'(: <"/dev/tcp/{server}/{port}") 2>/dev/null && echo open || echo refused'
        assert (await actors.gateways[0].host.run("bash", "-c", tried)).strip() == answer, port
    keys = re.findall(r"\[(\d+)/(\d+)\]", await actors.here.consul("keyring", "-list"))
    members = [name for name, host in actors.running.topology.hosts.items() if host.datacenter == actors.datacenter]
    assert (str(len(members)), str(len(members))) in keys
    assert all(having == asked for having, asked in keys)


async def test_scripts_change_nothing_that_is_as_it_should_be(peering_lab: Lab, actors: Actors) -> None:
    """Run again on hosts of each role: no process is another one afterwards, and what is let in stays so."""
    for service in (DATABASE, HTTP):
        await actors.allow(service)
        await actors.until_reached(service)
    hosts = {
        "legacy-1": "legacy.sh",
        "cloud-server-1": "server.sh",
        "cloud-mesh-1": "mesh-gateway.sh",
        "onprem-gateway-1": "terminating-gateway.sh",
        "cloud-app-1": "application.sh",
    }
    before = {host: await _services(actors, host) for host in hosts}
    assert all(before.values())
    for host, script in hosts.items():
        has_client = Role.SERVER not in actors.running.topology.hosts[host].roles and host != "legacy-1"
        for again in ("base.sh", *(("agent.sh",) if has_client else ()), script):
            await peering_lab.script(host, again)
    assert {host: await _services(actors, host) for host in hosts} == before
    await peering_lab.script("onprem-server-1", "operator.sh")
    assert await actors.application.reaches(DATABASE)


async def test_web_shows_its_own_users_what_it_was_told(actors: Actors) -> None:
    await actors.allow(HTTP)
    await actors.until_reached(HTTP)
    page = await actors.application.host.run("curl", "-sSf", "-m", "10", "http://127.0.0.1/front")
    assert page.startswith("legacy-http of legacy-1, asked for /front by ")


async def _services(actors: Actors, host: str) -> str:
    """Which process each service is."""
    listed = await actors.running.hosts[host].run("bash", "-c", "sv status /etc/sv/*/ 2>&1 | sed 's/) .*/)/'")
    return "\n".join(sorted(line for line in listed.splitlines() if line.startswith("run")))
