"""The ``service-intentions`` entry of a destination with sources more or less. Pure.

Other sources, their order, ``Permissions``, ``JWT`` and ``Meta`` stay as they are. A source that is denied, or allowed
for some requests only, is not opened without being told so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from plugin.linking.edit import MARK_TEXT, Edit, Entry, Refused, in_tenancy, written_form

KIND = "service-intentions"


def with_sources(entry: Entry | None, service: str, sources: Iterable[str], *, replace: bool) -> Edit:
    """:raises Refused: when a source is not simply allowed already, and ``replace`` is not set; or when Consul would
    refuse the entry in any form that keeps what is in it."""
    after: dict[str, Any] = written_form(entry) or {"Kind": KIND, "Name": service}
    rows: list[dict[str, Any]] = list(after.get("Sources") or ())
    todo, kept, reasons = [], [], []
    for source in dict.fromkeys(sources):
        existing = _find(rows, source, after)
        if existing is None:
            rows.append({"Name": source, "Action": "allow", "Description": MARK_TEXT})
            todo.append(f"allow {source} to call {service}")
        elif existing.get("Action") == "allow":
            kept.append(f"{source} may call {service}")
        elif replace:
            todo.append(f"allow {source} to call {service}, instead of: {_said(existing)}")
            existing.pop("Permissions", None)
            existing |= {"Action": "allow", "Description": MARK_TEXT}
        else:
            reasons.append(f"an intention for {source} and {service} exists: {_said(existing)}; --replace overrides it")
    if reasons:
        raise Refused(*reasons)
    if todo:
        _check_writable(rows, service)
    after["Sources"] = rows
    before = written_form(entry)
    return Edit(
        kind=KIND, name=service, before=entry, after=after if todo else before, todo=tuple(todo), kept=tuple(kept)
    )


def without_ours(entry: Entry | None, service: str, *, may_delete: bool = True) -> Edit:
    """Remove the sources that this program has allowed, and nothing else.

    :raises Refused: when nothing would be left in the entry, and it may not be deleted or has more than sources.
    """
    after = written_form(entry)
    if entry is None or after is None:
        return Edit(kind=KIND, name=service, before=None, after=None)
    rows: list[dict[str, Any]] = list(after.get("Sources") or ())
    ours = [row for row in rows if _is_ours(row)]
    left = [row for row in rows if not _is_ours(row)]
    notes = (f"{len(left)} other intention(s) for {service} stay: `consul config read -kind {KIND} -name {service}`",)
    if not ours:
        return Edit(kind=KIND, name=service, before=entry, after=after, notes=notes)
    _check_writable(left, service)
    todo = tuple(f"remove the intention that lets {row['Name']} call {service}" for row in ours)
    if left:
        return Edit(kind=KIND, name=service, before=entry, after={**after, "Sources": left}, todo=todo, notes=notes)
    if not may_delete:
        raise Refused(
            "this Consul (before 1.11) cannot delete an entry and be sure that nobody has just changed it; use"
            + "".join(f" `consul intention delete {row['Name']} {service}`" for row in ours)
        )
    if after.get("Meta") or after.get("JWT"):
        raise Refused(
            f"the {KIND} entry {service} has no other source, but Meta or JWT that were written by somebody else, and"
            f" Consul keeps none without a source; delete it with `consul config delete -kind {KIND} -name {service}`"
        )
    return Edit(kind=KIND, name=service, before=entry, after=None, todo=todo)


def our_sources(entry: Entry | None) -> tuple[str, ...]:
    return tuple(row["Name"] for row in (entry or {}).get("Sources") or () if _is_ours(row))


def _is_ours(row: Entry) -> bool:
    return row.get("Description") == MARK_TEXT and row.get("Action") == "allow"


def _find(rows: Iterable[dict[str, Any]], source: str, entry: Entry) -> dict[str, Any] | None:
    for row in rows:
        local = not row.get("Peer") and not row.get("SamenessGroup")
        if row.get("Name") == source and local and in_tenancy(row, entry):
            return row
    return None


def _said(row: Entry) -> str:
    if row.get("Permissions"):
        return f"{len(row['Permissions'])} permission(s) for requests (layer 7)"
    text = str(row.get("Action") or "no action")
    return f"{text} ({row['Description']})" if row.get("Description") else text


def _check_writable(rows: Iterable[Entry], service: str) -> None:
    """:raises Refused: Consul refuses an entry with what intentions had before they were config entries."""
    for row in rows:
        if row.get("LegacyMeta"):
            raise Refused(
                f"the intention for {row['Name']} and {service} has metadata from before intentions were config"
                f" entries, and Consul takes no change with it; write it anew with `consul intention create -replace"
                f" -{row.get('Action')} {row['Name']} {service}`"
            )
