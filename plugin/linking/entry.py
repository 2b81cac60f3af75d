"""The ``terminating-gateway`` entry with a link more or less. Pure.

Source of the rules: https://developer.hashicorp.com/consul/docs/connect/config-entries/terminating-gateway and, for
what is refused, a real Consul.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from plugin.linking.edit import MARK_KEY, MARK_VALUE, Edit, Entry, Refused, in_tenancy, is_marked, written_form
from plugin.linking.request import LinkRequest

KIND = "terminating-gateway"
_TLS_FIELDS = ("CAFile", "CertFile", "KeyFile", "SNI")


def with_link(entry: Entry | None, request: LinkRequest, *, other_gateways: Iterable[str] = ()) -> Edit:
    """:raises Refused: when the entry is missing and may not be created, or links the service in another way."""
    wanted = {"Name": request.service, **_wanted_tls(request)}
    if entry is None:
        return _created(wanted, request, tuple(other_gateways))
    after = written_form(entry) or {}
    links: list[dict[str, Any]] = list(after.get("Services") or ())
    existing, wildcard = find_link(links, request.service, entry), find_link(links, "*", entry)
    place = f"the {KIND} entry {request.gateway}"
    if existing is not None:
        return _revised(existing, wanted, after, entry, request)
    if wildcard is not None and _tls(wildcard) == _tls(wanted):
        kept = (f"{request.service} is linked by * in {place} ({_how(wildcard)})",)
        return Edit(kind=KIND, name=request.gateway, before=entry, after=after, kept=kept)
    notes: tuple[str, ...] = ()
    if wildcard is not None:
        notes = (f"the new link of {request.service} ({_how(wanted)}) counts instead of that of * ({_how(wildcard)})",)
    after["Services"] = [*links, wanted]
    todo = (f"link {request.service} in {place}: {_how(wanted)}",)
    return Edit(kind=KIND, name=request.gateway, before=entry, after=after, todo=todo, notes=notes)


def _created(wanted: Mapping[str, Any], request: LinkRequest, others: tuple[str, ...]) -> Edit:
    if not request.create:
        known = f"; there are: {', '.join(sorted(others))} (choose with --gateway)" if others else ""
        raise Refused(f"there is no {KIND} entry named {request.gateway}{known}; create it with --create")
    after = {"Kind": KIND, "Name": request.gateway, "Services": [dict(wanted)], "Meta": {MARK_KEY: MARK_VALUE}}
    todo = (f"create the {KIND} entry {request.gateway} with a link to {request.service}: {_how(wanted)}",)
    return Edit(kind=KIND, name=request.gateway, before=None, after=after, todo=todo)


def _revised(
    existing: dict[str, Any], wanted: Mapping[str, Any], after: Entry, entry: Entry, request: LinkRequest
) -> Edit:
    """``existing`` is a part of ``after``."""
    was = _how(existing)
    place = f"the {KIND} entry {request.gateway}"
    if _tls(existing) == _tls(wanted):
        kept = (f"{request.service} is linked in {place} ({was})",)
        return Edit(kind=KIND, name=request.gateway, before=entry, after=after, kept=kept)
    if not request.replace:
        raise Refused(
            f"{request.service} is linked in {place} in another way ({was}, not {_how(wanted)}); --replace changes that"
        )
    for key in _TLS_FIELDS:
        existing.pop(key, None)
    existing.update(_tls(wanted))
    todo = (f"change the link of {request.service} in {place}: {_how(wanted)} instead of {was}",)
    return Edit(kind=KIND, name=request.gateway, before=entry, after=after, todo=todo)


def without_link(entry: Entry | None, service: str, gateway: str, *, purge: bool) -> Edit:
    """``purge`` takes an entry away that this program had created and that links nothing any more."""
    place = f"the {KIND} entry {gateway}"
    after = written_form(entry)
    if entry is None or after is None:
        return Edit(
            kind=KIND, name=gateway, before=None, after=None, kept=(f"there is no {KIND} entry named {gateway}",)
        )
    links: list[dict[str, Any]] = list(after.get("Services") or ())
    existing = find_link(links, service, entry)
    notes: tuple[str, ...] = ()
    if find_link(links, "*", entry) is not None:
        notes = (f"* in {place} links every service of the catalog: {service} too, as long as it has an instance",)
    if existing is None and not (purge and _is_left_over(after)):
        kept = (f"{place} has no link of its own to {service}",)
        return Edit(kind=KIND, name=gateway, before=entry, after=after, kept=kept, notes=notes)
    after["Services"] = [link for link in links if link is not existing]
    if purge and _is_left_over(after):
        todo = (f"delete {place}: it links nothing any more",)
        return Edit(kind=KIND, name=gateway, before=entry, after=None, todo=todo)
    todo = (f"unlink {service} in {place}",)
    return Edit(kind=KIND, name=gateway, before=entry, after=after, todo=todo, notes=notes)


def _is_left_over(entry: Entry) -> bool:
    return is_marked(entry.get("Meta")) and not entry.get("Services")


def find_link(links: Iterable[dict[str, Any]], name: str, entry: Entry) -> dict[str, Any] | None:
    return next((link for link in links if link.get("Name") == name and in_tenancy(link, entry)), None)


def links_to(entry: Entry, service: str) -> bool:
    """Whether ``entry`` links ``service``, by name or by ``*``."""
    links = list(entry.get("Services") or ())
    return any(find_link(links, name, entry) is not None for name in (service, "*"))


def _wanted_tls(request: LinkRequest) -> dict[str, str]:
    values = (request.ca_file, request.cert_file, request.key_file, request.sni)
    return {key: value for key, value in zip(_TLS_FIELDS, values, strict=True) if value}


def _tls(link: Mapping[str, Any]) -> dict[str, str]:
    return {key: link[key] for key in _TLS_FIELDS if link.get(key)}


def _how(link: Mapping[str, Any]) -> str:
    tls = _tls(link)
    if "CAFile" not in tls:
        return "plain TCP"
    word = "mutual TLS" if "CertFile" in tls else "TLS"
    return f"{word} with " + ", ".join(f"{key} {value}" for key, value in tls.items())
