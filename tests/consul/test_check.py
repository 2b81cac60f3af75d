"""``consul-tgw check`` against a real agent with ACLs: every missing thing is named with its remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.check import Finding, Report, check_gateway
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from plugin.errors import ConsulUnavailable
from plugin.settings import ConsulSettings
from tests.support.linking import serves, service_status

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def write(agent: ConsulAgent, gateway: str, *links: dict[str, str]) -> None:
    await agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": list(links)})
    for link in links:
        service = {"ID": link["Name"], "Service": link["Name"], "Port": 5432}
        body = {"Node": f"node-of-{link['Name']}", "Address": "127.0.0.1", "Service": service}
        await agent.api("PUT", "/v1/catalog/register", body)


async def report(agent: ConsulAgent, gateway: str, rules: str) -> Report:
    token = await agent.create_token(rules)
    return await check_gateway(ConsulSettings(address=agent.http_address, token=token), gateway)


def missing(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "missing"]


def rules(*writable: str, nodes: bool = True) -> str:
    text = "".join(f'service "{name}" {{ policy = "write" }}\n' for name in writable)
    return text + ('node_prefix "" { policy = "read" }' if nodes else "")


async def test_nothing_is_missing_with_the_least_rights(acl_agent: ConsulAgent) -> None:
    await write(acl_agent, "chk-good", {"Name": "chk-good-db"})
    found = await report(acl_agent, "chk-good", rules("chk-good", "chk-good-db"))
    assert found.ok, found
    assert any("1 of 1 endpoints are healthy" in finding.text for finding in found.services[0].findings)


async def test_the_rule_for_a_leaf_is_named_and_other_services_are_fine(acl_agent: ConsulAgent) -> None:
    await write(acl_agent, "chk-leaf", {"Name": "chk-leaf-a"}, {"Name": "chk-leaf-b"})
    rights = rules("chk-leaf", "chk-leaf-a") + '\nservice "chk-leaf-b" { policy = "read" }'
    found = await report(acl_agent, "chk-leaf", rights)
    good, bad = found.services
    assert good.ok, good
    assert 'service "chk-leaf-b" { policy = "write" }' in [finding.rule for finding in missing(bad.findings)]
    assert not found.ok


async def test_hidden_nodes_are_told_from_missing_instances(acl_agent: ConsulAgent) -> None:
    await write(acl_agent, "chk-nodes", {"Name": "chk-nodes-db"})
    found = await report(acl_agent, "chk-nodes", rules("chk-nodes", "chk-nodes-db", nodes=False))
    assert 'node_prefix "" { policy = "read" }' in [finding.rule for finding in missing(found.services[0].findings)]


async def test_instances_that_are_hidden_beside_others_are_told(acl_agent: ConsulAgent, work_dir: Path) -> None:
    """The gateway serves with those that it can see."""
    gateway_name, service = "chk-some", "chk-some-db"
    seen = f'{rules(gateway_name, service, nodes=False)}\nnode "node-of-{service}" {{ policy = "read" }}'
    await write(acl_agent, gateway_name, {"Name": service})
    await acl_agent.register_external("node-unseen", "127.0.0.1", service, 5432)
    told = [one for one in (await report(acl_agent, gateway_name, seen)).services[0].findings if "some" in one.text]
    assert [one.rule for one in told] == ['node_prefix "" { policy = "read" }']
    secret = await acl_agent.create_token(seen)
    async with Gateway(acl_agent, work_dir, gateway_name, token=secret) as gateway:
        await serves(gateway, service)
        status = await service_status(gateway, service)
        assert len(status["endpoints"]) == 1
        assert any("hides some instances" in text and "node_prefix" in text for text in status["warnings"])
        assert gateway.log_path.read_text().count("instances.hidden") == 1


async def test_a_missing_file_is_named(acl_agent: ConsulAgent, tmp_path: Path) -> None:
    path = str(tmp_path / "none.pem")
    await write(acl_agent, "chk-file", {"Name": "chk-file-db", "CAFile": path, "SNI": "db.example"})
    found = await report(acl_agent, "chk-file", rules("chk-file", "chk-file-db"))
    assert any(path in finding.text for finding in missing(found.services[0].findings))


async def test_readable_files_are_fine(acl_agent: ConsulAgent, tmp_path: Path, authority: Authority) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(authority.certificate_pem)
    await write(acl_agent, "chk-tls", {"Name": "chk-tls-db", "CAFile": str(path), "SNI": "db.example"})
    found = await report(acl_agent, "chk-tls", rules("chk-tls", "chk-tls-db"))
    assert found.ok, found
    assert any("reached by TLS" in finding.text for finding in found.services[0].findings)


async def test_no_entry_at_all_is_named(acl_agent: ConsulAgent) -> None:
    found = await report(acl_agent, "chk-none", rules("chk-none"))
    assert "there is no terminating-gateway entry named chk-none" in missing(found.findings)[0].text


async def test_an_entry_that_may_not_be_read_names_the_rule(acl_agent: ConsulAgent) -> None:
    await write(acl_agent, "chk-denied", {"Name": "chk-denied-db"})
    found = await report(acl_agent, "chk-denied", rules(nodes=True))
    assert any('service "chk-denied"' in finding.rule for finding in missing(found.findings))


async def test_no_agent_is_an_error_of_its_own() -> None:
    settings = ConsulSettings(address=f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(ConsulUnavailable):
        await check_gateway(settings, "chk-away", patience_s=2.0)


async def test_a_subset_that_no_instance_is_in_is_told(acl_agent: ConsulAgent) -> None:
    name = "chk-subset-db"
    await write(acl_agent, "chk-subset", {"Name": name})
    subsets = {"v1": {"Filter": "Service.Meta.version == v1"}, "all": {"Filter": ""}}
    entry = {"Kind": "service-resolver", "Name": name, "DefaultSubset": "v1"}
    await acl_agent.write_config({**entry, "Subsets": {one: subsets[one] for one in ("v1", "all")}})
    (service,) = (await report(acl_agent, "chk-subset", rules("chk-subset", name))).services
    (warning,) = (one.text for one in service.findings if one.level == "warning")
    assert warning.startswith(f"no instance of {name} is in the subset 'v1': who asks for it is refused; correct")
    await acl_agent.write_config({**entry, "DefaultSubset": "", "Subsets": {"all": subsets["all"]}})
    (service,) = (await report(acl_agent, "chk-subset", rules("chk-subset", name))).services
    assert [one for one in service.findings if one.level == "warning"] == []
