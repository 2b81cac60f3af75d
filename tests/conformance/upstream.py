"""External services that speak TLS, and what operators are told about them: for the cases of the second session."""

from __future__ import annotations

import contextlib
from typing import Any

from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority, KeyPair
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually

TOPIC = "TLS to the external service"
PARTNER, NEXT, OTHER = Authority("Partner CA"), Authority("Next partner CA"), Authority("Other CA")
NAME = "db.example"
_WITHIN_S = 6.0
"""What is to be picked up without a restart is picked up by then."""

READ_ONCE = {"before": "echo", "new connection": REFUSED, "live connection": "echo"}
READ_AGAIN = {"before": "echo", "new connection": "echo", "live connection": "echo"}


async def becomes(stand: Stand, wanted: str, service: str = "db") -> str:
    """The outcome of a new connection as soon as it is ``wanted``, else what it is after a while."""

    async def is_it() -> bool:
        return await stand.outcome(service=service) == wanted

    with contextlib.suppress(AssertionError):
        await eventually(is_it, _WITHIN_S)
    return await stand.outcome(service=service)


async def told(stand: Stand, service: str, *words: str) -> bool:
    """Whether the operator finds all these words: in the status of the service, or in what Envoy logs."""
    if not isinstance(stand.gateway, Gateway):
        log = stand.agent.work_dir / f"{stand.gateway.proxy_id}.log"
        return all(word in log.read_text() for word in words)
    gateway, name = stand.gateway, stand.named(service)

    async def in_status() -> bool:
        found = await _shown(gateway, name)
        texts = (*found.get("reasons", ()), *found.get("warnings", ()))
        return any(all(word in text for word in words) for text in texts)

    await eventually(in_status, what=f"the status of {name} says {words}")
    return True


async def _shown(gateway: Gateway, name: str) -> dict[str, Any]:
    """The service in the status. :raises AssertionError: while it is not there: the link may be on its way."""
    found: list[dict[str, Any]] = [one for one in (await gateway.status())["services"] if one["name"] == name]
    assert len(found) == 1, f"{name} is {len(found)} times in the status"
    return found[0]


async def told_nothing(stand: Stand, service: str) -> None:
    """Wait until no problem of the service is reported any more."""
    if not isinstance(stand.gateway, Gateway):
        return
    gateway, name = stand.gateway, stand.named(service)

    async def quiet() -> bool:
        found = await _shown(gateway, name)
        return not found.get("reasons") and not found.get("warnings")

    await eventually(quiet, what=f"the status of {name} has nothing to say")


async def tls_service(stand: Stand, service: str = "db", *, pair: KeyPair, **options: Any) -> ExternalService:
    """An echo service that speaks TLS, registered and allowed; not linked."""
    backend = await stand.backend(tls=pair, **options)
    await stand.register(service, backend.port)
    await stand.intention("web", service)
    return backend


# --- files that change ---------------------------------------------------------------------------------------
