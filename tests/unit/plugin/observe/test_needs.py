from __future__ import annotations

from pathlib import Path

from plugin.addresses import HostPort
from plugin.consul.api import HealthEntry, Instance, LinkedService, Node, TerminatingGatewayEntry
from plugin.observe.needs import Needs
from plugin.observe.store import FactStore
from plugin.process.tasks import spawn
from proxy.model import ServiceName
from tests.support.dns_server import dns_server
from tests.support.eventually import eventually

A, B = ServiceName("a"), ServiceName("b")


def link(store: FactStore, *links: LinkedService) -> None:
    store.entry.learned(TerminatingGatewayEntry(name="gw", services=links))
    store.gateway_services.learned(())


async def test_files_are_read_for_every_service_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"one")
    store = FactStore()
    link(store, LinkedService(name="a", ca_file=str(path)), LinkedService(name="b", ca_file=str(path)))
    needs = Needs(store)
    running = spawn(needs.run(), name="needs")
    try:
        for name in (A, B):
            needs.changed(name, store.service_facts(name))
            assert store.service_facts(name).files.keys() == {str(path)}

        def both_have_it() -> bool:
            return all(store.service_facts(name).files[str(path)].value == b"one" for name in (A, B))

        await eventually(both_have_it)
        needs.changed(A, None)
        path.write_bytes(b"two!")
        needs.read_again()
        await eventually(lambda: store.service_facts(B).files[str(path)].value == b"two!")
        assert store.service_facts(A).files == {}
    finally:
        running.cancel()


async def test_hostnames_of_instances_are_resolved() -> None:
    store = FactStore()
    link(store, LinkedService(name="a"))
    instance = Instance(id="a1", service="a", address="localhost", port=1)
    store.instances(A).learned((HealthEntry(node=Node(node="n"), service=instance),))
    needs = Needs(store)
    running = spawn(needs.run(), name="needs")
    try:
        needs.changed(A, store.service_facts(A))
        await eventually(lambda: "127.0.0.1" in (store.service_facts(A).addresses["localhost"].value or ()))
    finally:
        running.cancel()


async def test_the_given_name_server_is_asked() -> None:
    store = FactStore()
    link(store, LinkedService(name="a"))
    instance = Instance(id="a1", service="a", address="db.example", port=1)
    store.instances(A).learned((HealthEntry(node=Node(node="n"), service=instance),))
    async with dns_server(db_example=["127.0.0.2"]) as server:
        needs = Needs(store, [HostPort.parse(server.address)])
        running = spawn(needs.run(), name="needs")
        try:
            needs.changed(A, store.service_facts(A))
            await eventually(lambda: store.service_facts(A).addresses["db.example"].value == ("127.0.0.2",))
        finally:
            running.cancel()
