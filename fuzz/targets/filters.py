"""Any text is a filter or BexprError, within bounded time and depth, and a filter answers for every instance."""

from __future__ import annotations

import msgspec

from plugin.assemble.bexpr import BexprError, compile_filter
from plugin.consul.api import HealthEntry

CODE = ("plugin.assemble.bexpr", "plugin.assemble.bexpr_syntax")

_FULL = msgspec.json.decode(
    b"""{"Node": {"ID": "n", "Node": "vm1", "Address": "10.0.0.1", "Datacenter": "dc1", "Meta": {"rack": "r7"}},
    "Service": {"ID": "db-1", "Service": "db", "Tags": ["a", "v1"], "Port": 5432, "Meta": {"version": "v1"},
    "TaggedAddresses": {"wan": {"Address": "192.0.2.1", "Port": 1}}, "Connect": {}, "Proxy": {}},
    "Checks": [{"CheckID": "c", "Node": "vm1", "Name": "n", "Status": "passing", "ServiceTags": ["a"]}]}""",
    type=HealthEntry,
)
_BARE = msgspec.json.decode(b'{"Node": {"Node": "vm"}, "Service": {"ID": "i", "Service": "s"}}', type=HealthEntry)


def run(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        compiled = compile_filter(text)
        opposite = compile_filter(f"not ({text})")
    except BexprError:
        return
    for entry in (_FULL, _BARE):
        matches = compiled.matches(entry)
        assert isinstance(matches, bool)
        assert opposite.matches(entry) is not matches
