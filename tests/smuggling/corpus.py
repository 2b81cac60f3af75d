"""All messages; their names are unique."""

from __future__ import annotations

from tests.smuggling import chunks, connections, downgrade, heads, hosts, lengths, paths
from tests.smuggling.case import AnyCase

CORPUS: list[AnyCase] = [
    *lengths.CASES,
    *chunks.CASES,
    *heads.CASES,
    *hosts.CASES,
    *paths.CASES,
    *connections.CASES,
    *downgrade.CASES,
]
