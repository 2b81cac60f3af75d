from __future__ import annotations

import asyncio
import logging

import msgspec

from plugin.consul.api import LinkedService
from plugin.events.ring import MOST_CHANGES, Change, EventRing
from plugin.events.updates import UpdateStory
from plugin.events.words import MOST_INTENTIONS, mesh_differences, service_differences
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.process.tasks import spawn
from proxy import logs
from proxy.model import Endpoint, ServerName, ServiceName, UpstreamTLS
from proxy.rules import Action, Permission
from tests.support.mesh import HandMadeMesh, allow, deny

MESH = HandMadeMesh()
SERVICE = MESH.service("db", 1, 2, intentions=(allow("web"),))


def changed(**fields: object) -> list[str]:
    return [what for _, what in service_differences(SERVICE, msgspec.structs.replace(SERVICE, **fields))]


def instances(*endpoints: Endpoint) -> list[str]:
    return changed(server_names=(ServerName(SERVICE.server_names[0].sni, endpoints),))


def test_intentions_are_told_in_words() -> None:
    assert changed(intentions=(deny("web"),)) == ["intention web => db: allow -> deny"]
    assert changed(intentions=(allow("web"), deny("*", 8))) == ["intention * => db: new, deny"]
    assert changed(intentions=()) == ["intention web => db: removed, was allow"]
    assert changed(intentions=(allow("web", 8),)) == ["intention web => db: precedence 9 -> 8"]
    assert changed(intentions=None) == ["intentions unknown: every caller is refused"]
    rules = msgspec.structs.replace(allow("web"), permissions=(Permission(Action.ALLOW),), layer7=True)
    assert changed(intentions=(rules,)) == ["intention web => db: allow -> 1 permissions"]
    others = msgspec.structs.replace(rules, permissions=(Permission(Action.DENY),))
    before = msgspec.structs.replace(SERVICE, intentions=(rules,))
    after = msgspec.structs.replace(SERVICE, intentions=(others,))
    assert list(service_differences(before, after)) == [("intentions", "intention web => db: other permissions")]
    assert changed(intentions=(allow("web"),)) == []


def test_many_intentions_are_counted() -> None:
    told = changed(intentions=(allow("web"), *(allow(f"source-{number}") for number in range(MOST_INTENTIONS + 5))))
    assert len(told) == MOST_INTENTIONS + 1
    assert told[-1] == "5 more intentions changed"


def test_instances_are_counted() -> None:
    first, second = SERVICE.server_names[0].endpoints
    third = msgspec.structs.replace(first, port=3, instance="node/db-3")
    assert instances(first, third) == ["instances +1 -1, now 2"]
    assert instances(first, second, third) == ["instances +1, now 3"]
    sick = msgspec.structs.replace(second, healthy=False)
    assert instances(first, sick) == ["1 of 2 instances no longer healthy"]
    assert instances(first, msgspec.structs.replace(second, weight=5)) == ["weights of instances changed"]


def test_everything_else_is_named_and_no_key_is_shown() -> None:
    renewed = msgspec.structs.replace(SERVICE.leaf, serial_number="02", not_after_s=0.0)
    assert changed(leaf=renewed) == ["leaf renewed, ends 1970-01-01T00:00:00Z"]
    assert changed(connect_timeout_s=2.5, protocol="http") == ["protocol tcp -> http", "connect timeout 5 -> 2.5"]
    assert changed(max_connections=7) == ["maximum of connections none -> 7"]
    secured = UpstreamTLS(ca_pem="ca", private_key_pem="secret", server_name="a.example")
    assert changed(upstream_tls=secured) == ["TLS to the external service is on"]
    before = msgspec.structs.replace(SERVICE, upstream_tls=secured)
    other = msgspec.structs.replace(secured, private_key_pem="hidden", server_name="")
    told = [what for _, what in service_differences(before, msgspec.structs.replace(before, upstream_tls=other))]
    assert told == [
        "another client certificate for the external service (CertFile, KeyFile)",
        "SNI to the external service a.example -> none",
    ]


def test_what_all_services_share() -> None:
    before = MESH.settings(Action.ALLOW)
    after = msgspec.structs.replace(before, default_action=Action.DENY, roots_pem=("one", "two"), stale=True)
    assert [what for _, what in mesh_differences(before, after)] == [
        "roots +2 -1",
        "default allow -> deny",
        "too old: nobody new is let in",
    ]


def facts() -> ServiceFacts:
    name = ServiceName("db")
    return ServiceFacts(
        name=name, link=LinkedService(name="db"), intentions=Fact(known=True, index=41), leaf=Fact(index=9)
    )


def test_an_update_is_one_event_with_the_index_of_each_change() -> None:
    ring, story = EventRing(), UpdateStory()
    with logs.heard_by(ring.heard):
        story.service(SERVICE, msgspec.structs.replace(SERVICE, intentions=()), facts())
        story.unlinked(ServiceName("old"), 50)
        story.tell(7, (ServiceName("old"), ServiceName("db")))
        story.tell(8, ())
    (event,) = ring.after(0).events
    assert (event.event, event.generation, event.index, event.services) == ("state.updated", 7, 50, ("db", "old"))
    assert event.changes == (
        Change("intention web => db: removed, was allow", "db", 41),
        Change("no longer linked", "old", 50),
    )
    assert event.message == "state 7: db: intention web => db: removed, was allow; old: no longer linked"


def test_an_update_of_thousands_of_services_stays_small() -> None:
    ring, story = EventRing(), UpdateStory()
    with logs.heard_by(ring.heard):
        for _ in range(MOST_CHANGES + 20):
            story.service(None, SERVICE, facts())
        story.tell(1, ())
    (event,) = ring.after(0).events
    assert len(event.changes) == MOST_CHANGES
    assert event.message.endswith("; and 115 more changes")


def test_the_first_mesh_is_no_change() -> None:
    ring, story = EventRing(), UpdateStory()
    with logs.heard_by(ring.heard):
        story.mesh(None, MESH.settings(), MeshFacts())
        story.tell(1, ())
    assert ring.after(0).events == ()


def test_the_ring_keeps_the_newest_and_says_what_is_missing() -> None:
    ring = EventRing(most=3)
    for number in range(5):
        ring.heard(logging.WARNING, "a.thing", f"number {number}", {"service": "db", "other": object, "count": 2})
    page = ring.after(0)
    assert [one.number for one in page.events] == [3, 4, 5]
    assert (page.newest, page.missed) == (5, True)
    assert (page.events[0].services, page.events[0].level) == (("db",), "warning")
    assert page.events[0].fields == {"service": "db", "other": "<class 'object'>", "count": 2}
    assert (ring.after(2).missed, ring.after(4).missed) == (False, False)
    of_an_earlier_process = ring.after(99)
    assert (len(of_an_earlier_process.events), of_an_earlier_process.missed) == (3, True)
    msgspec.json.encode(page)


async def test_who_waits_is_woken_by_the_next_event_and_at_the_end() -> None:
    ring = EventRing()
    waiting = [spawn(ring.wait_after(0, 30), name="waiting") for _ in range(2)]
    await asyncio.sleep(0)
    ring.heard(logging.INFO, "a.thing", "now", {})
    assert [len((await one).events) for one in waiting] == [1, 1]
    assert (await ring.wait_after(1, 0.01)).events == ()
    last = spawn(ring.wait_after(1, 30), name="waiting")
    await asyncio.sleep(0)
    ring.stop_waiting()
    assert (await last).events == ()
    assert (await ring.wait_after(1, 30)).events == ()
