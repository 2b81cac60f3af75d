"""Which services a terminating gateway is linked to, and by which link.

The links come from the terminating-gateway entry alone. The rows of ``catalog/gateway-services`` only say
which services ``*`` stands for: Consul overwrites the TLS fields of an explicit row with those of ``*`` when
an instance of that service registers again, so nothing but names and kinds is taken from them. This module
is pure and knows neither instances nor files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plugin.consul.api import GatewayService, LinkedService, TerminatingGatewayEntry
from proxy.model import ServiceName

WILDCARD = "*"

_NOT_BY_WILDCARD = frozenset({WILDCARD, "consul"})
_KINDS = frozenset({"", "service", "destination"})


@dataclass(frozen=True, slots=True)
class Link:
    link: LinkedService
    """The explicit link if there is one, else that of ``*``; never a mixture."""
    from_wildcard: bool


def linked_services(
    entry: TerminatingGatewayEntry | None, rows: Iterable[GatewayService]
) -> Mapping[ServiceName, Link]:
    """Return the link of every linked service: explicit ones in the entry's order, then those of ``*``.

    An explicit link needs no row: the service may have no instance yet. A link cannot leave the partition of
    its entry, and ``*`` does not leave the namespace of its link. A row that Consul still marks as explicit
    counts for ``*`` too, so that a link removed from under ``*`` does not blink out until Consul rewrote
    its rows.
    """
    if entry is None:
        return {}
    links = dict(_explicit(entry))
    wildcards = [link for link in entry.services or () if link.name == WILDCARD]
    for row in sorted(rows, key=lambda row: (row.service.name, row.service.namespace)):
        name = ServiceName(row.service.name, row.service.namespace, row.service.partition)
        if name in links or name.name in _NOT_BY_WILDCARD or row.service_kind not in _KINDS:
            continue
        for link in wildcards:
            if name.partition == entry.partition and name.namespace == _namespace(link, entry):
                links[name] = Link(link, from_wildcard=True)
                break
    return links


def _explicit(entry: TerminatingGatewayEntry) -> Iterator[tuple[ServiceName, Link]]:
    seen: set[ServiceName] = set()
    for link in entry.services or ():
        name = ServiceName(link.name, _namespace(link, entry), entry.partition)
        if link.name != WILDCARD and name not in seen:
            seen.add(name)
            yield name, Link(link, from_wildcard=False)


def _namespace(link: LinkedService, entry: TerminatingGatewayEntry) -> str:
    return link.namespace or entry.namespace or "default"
