"""What is written as HCL is what ``consul config write`` reads, whatever the texts are."""

from __future__ import annotations

from pathlib import Path

from fuzz import target as targets
from fuzz.draw import Draw
from fuzz.targets import hcl
from plugin.dev.consul_agent import ConsulAgent
from plugin.linking.hcl import to_hcl

TEXTS = (
    *('${', "a${b}c", "${}", "$${", "$", "%{x}", '"', "\\", "\\n", "'", "#", "//", "/*", "<<EOF", "{}", ""),
    *("\n", "\t\r", "\b\f\v\a", "\x01", "\x7f", "é", "\u2028", "😀", "=", "a = b", "x\\${y"),
)  # fmt: skip
MOST = 64
"""Entries of a Meta that Consul takes."""
LONGEST_KEY = 128


async def test_consul_reads_back_what_was_written(tmp_path: Path) -> None:
    texts = [*TEXTS, *(text for text in sorted(texts_of_corpus()) if text.isprintable())]
    async with ConsulAgent(tmp_path / "consul") as agent:
        for start in range(0, len(texts), MOST):
            meta = {f"{number}{text}"[:LONGEST_KEY]: text for number, text in enumerate(texts[start : start + MOST])}
            entry = {"Kind": "service-defaults", "Name": "db", "Protocol": "tcp", "Meta": meta}
            await agent.write_config(to_hcl(entry))
            read = await agent.api("GET", "/v1/config/service-defaults/db")
            assert read["Meta"] == meta


def texts_of_corpus() -> set[str]:
    """Keys and values of the entries that fuzzing has found worth keeping."""
    found: set[str] = set()
    for path in targets.load("hcl").entries():
        _collect(hcl.entry_of(Draw(path.read_bytes())), found)
    return found


def _collect(value: object, found: set[str]) -> None:
    if isinstance(value, dict):
        found.update(value)
        for inner in value.values():
            _collect(inner, found)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, found)
    elif isinstance(value, str):
        found.add(value)
