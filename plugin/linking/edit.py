"""A change of one config entry, planned from what Consul has. Pure: nothing is asked or written here.

Entries are the decoded JSON of ``GET /v1/config/:kind/:name``, not typed: whatever a newer Consul has in them is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from plugin.errors import GatewayError

Entry = Mapping[str, Any]

MARK_KEY = "managed-by"
MARK_VALUE = "consul-tgw"
"""In ``Meta`` and ``NodeMeta`` of what was created by this program; nothing else is ever removed with it."""
MARK_TEXT = f"{MARK_KEY}={MARK_VALUE}"
"""In ``Description`` of an intention, which has no other place for it."""

_READ_ONLY = ("CreateIndex", "ModifyIndex", "Hash")
_READ_ONLY_OF_SOURCES = ("Precedence", "LegacyID", "LegacyCreateTime", "LegacyUpdateTime")


class Refused(GatewayError):
    """What was asked cannot work or would undo something; nothing was touched. ``reasons`` has at least one."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    kind: str
    name: str
    before: Entry | None
    """As Consul has it; ``None`` when there is no such entry."""
    after: Entry | None
    """As it shall be; ``None`` when there shall be none."""
    todo: tuple[str, ...] = ()
    """What the change does, each an imperative phrase."""
    kept: tuple[str, ...] = ()
    """What is there already."""
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return written_form(self.before) != self.after

    @property
    def cas(self) -> str:
        """The value of ``?cas=``: 0 stands for an entry that must not exist yet."""
        return str(self.before["ModifyIndex"]) if self.before is not None else "0"


def written_form(entry: Entry | None) -> dict[str, Any] | None:
    """The entry as it is written: without what Consul computes."""
    if entry is None:
        return None
    copied = {key: deepcopy(value) for key, value in entry.items() if key not in _READ_ONLY}
    for source in copied.get("Sources") or ():
        for key in _READ_ONLY_OF_SOURCES:
            source.pop(key, None)
    return copied


def is_marked(meta: Mapping[str, str] | None) -> bool:
    return (meta or {}).get(MARK_KEY) == MARK_VALUE


def in_tenancy(item: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether an element of ``entry`` means the namespace and partition of ``entry`` itself (Consul Enterprise)."""
    return all(item.get(key, "") in ("", entry.get(key) or "default") for key in ("Namespace", "Partition"))
