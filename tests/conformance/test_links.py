"""Which services are linked: explicit links and ``*``."""

from __future__ import annotations

from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand

TOPIC = "Links"


@conformance(
    TOPIC,
    "A linked service is reached by who is allowed, and by nobody else",
    expect={"web": "echo", "cron": "refused"},
)
async def test_allowed_and_not(stand: Stand) -> Observation:
    await stand.offer()
    return {"web": await stand.outcome("web"), "cron": await stand.outcome("cron")}


@conformance(
    TOPIC,
    "An unlinked service is not served any more",
    expect={"before": "echo", "after": "refused"},
)
async def test_unlinked(stand: Stand) -> Observation:
    await stand.offer()
    before = await stand.outcome()
    await stand.unlink("db")
    await stand.kept_out()
    return {"before": before, "after": await stand.outcome()}


@conformance(
    TOPIC,
    "A service that has no instance is linked first and registered later",
    expect={"before": "refused", "after": "echo"},
)
async def test_linked_before_registered(stand: Stand) -> Observation:
    backend = await stand.backend()
    await stand.intention("web", "db")
    await stand.link("db")
    await stand.settled()
    before = await stand.outcome()
    await stand.register("db", backend.port)
    await stand.reached()
    return {"before": before, "after": await stand.outcome()}
