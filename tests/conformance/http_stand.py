"""Services of HTTP on a stand, and the permissions of their callers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.http_mirror import Mirror
from tests.conformance.http_one import request, said
from tests.conformance.stand import Stand
from tests.support.eventually import eventually

Permissions = Sequence[Mapping[str, Any]]


async def mirrored(
    stand: Stand,
    service: str = "db",
    *,
    protocol: str = "http",
    source: str = "web",
    mirror: Mirror | None = None,
    wait: bool = True,
    link: Mapping[str, Any] | None = None,
    **register: Any,
) -> Mirror:
    """A mirror as ``service``, registered, linked, and allowed for ``source`` (empty: for nobody)."""
    mirror = mirror or Mirror()
    backend = await stand.backend(mirror.serve)
    await stand.config("service-defaults", service, Protocol=protocol)
    await stand.register(service, backend.port, node=service, **register)
    if source:
        await stand.intention(source, service)
    await stand.link(service, **dict(link or {}))
    if wait and source:
        await reached(stand, service, source)
    return mirror


async def reached(stand: Stand, service: str = "db", source: str = "web", path: str = "/ready", **dial: str) -> None:
    """Wait until a request is answered with 200."""
    await answered(stand, "200", request(f"GET {path} HTTP/1.1"), service, source, **dial)


async def answered(
    stand: Stand, status: str, data: bytes = request(), service: str = "db", source: str = "web", **dial: str
) -> None:
    """Wait until this request is answered so (``ended``: with none)."""

    async def it_is() -> bool:
        return await said(stand, data, service, source, **dial) == status

    await eventually(it_is, 60.0, what=f"{stand.named(service)} answers {status} through {stand.gateway.name}")


def http(action: str, **fields: Any) -> dict[str, Any]:
    """A permission: ``http("allow", PathPrefix="/")``."""
    return {"Action": action, "HTTP": fields}


async def permit(stand: Stand, service: str, permissions: Permissions | Mapping[str, Any], source: str = "web") -> None:
    """The intentions of ``service`` are this one: ``permissions`` of ``source``, or the fields of a source."""
    fields = permissions if isinstance(permissions, Mapping) else {"Permissions": list(permissions)}
    await sources(stand, service, {"Name": source, **fields})


async def sources(stand: Stand, service: str, *entries: Mapping[str, Any], **fields: Any) -> None:
    """The intentions of ``service`` are these; ``Name`` is one of the case, or ``*``."""
    named = [{**one, "Name": "*" if one["Name"] == "*" else stand.named(one["Name"])} for one in entries]
    await stand.config("service-intentions", service, Sources=named, **fields)
