"""Golden files: facts in Consul's own JSON, and beside them what they must be assembled to.

``GOLDENS=update pytest tests/unit/plugin/assemble/test_assemble.py`` writes the expected half anew: read the difference
before it is kept. Certificates and keys are made for each run; in the files stand their names (``<ca.pem>``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from plugin.consul.api import (
    HealthEntry,
    IntentionMatch,
    LinkedService,
    MeshEntry,
    ProxyDefaults,
    Roots,
    ServiceDefaults,
    ServiceResolver,
)
from plugin.dev.pki import Authority
from plugin.errors import ConsulUnavailable
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.jwks.provider import KeptKeys
from proxy.model import Leaf, PeerBundle, ServiceName
from proxy.rules import Action

GOLDENS = Path(__file__).parent.parent / "unit" / "goldens"

_SERVICE_FACTS: dict[str, Any] = {
    "instances": tuple[HealthEntry, ...],
    "intentions": tuple[IntentionMatch, ...],
    "leaf": Leaf,
    "defaults": ServiceDefaults | None,
    "resolver": ServiceResolver | None,
}
_MESH_FACTS: dict[str, Any] = {
    "roots": Roots,
    "mesh": MeshEntry | None,
    "proxy_defaults": ProxyDefaults | None,
    "default_action": Action,
    "providers": tuple[Any, ...] | None,
    "peers": tuple[PeerBundle, ...],
}


@dataclass(frozen=True)
class Case:
    path: Path
    content: dict[str, Any]

    @property
    def mesh(self) -> MeshFacts:
        facts = self.content["mesh"]
        known: dict[str, Any] = _decoded(facts, _MESH_FACTS)
        return MeshFacts(
            datacenter=facts.get("datacenter", ""),
            proxy_config=facts.get("proxy_config", {}),
            wanted_providers=frozenset(facts.get("wanted_providers", ())),
            keys={
                msgspec.convert(source, KeptKeys): _fact(value, str)
                for source, value in ((json.loads(source), value) for source, value in facts.get("keys", {}).items())
            },
            **known,
        )

    @property
    def service(self) -> ServiceFacts:
        facts = self.content["facts"]
        return ServiceFacts(
            name=msgspec.convert(facts["name"], ServiceName),
            link=msgspec.convert(facts["link"], LinkedService),
            exported_to=tuple(facts.get("exported_to", ())),
            files={path: _fact(_filled(value), str, bytes_=True) for path, value in facts.get("files", {}).items()},
            addresses={name: _fact(value, tuple[str, ...]) for name, value in facts.get("addresses", {}).items()},
            from_wildcard=False,
            **_decoded(facts, _SERVICE_FACTS),
        )

    def check(self, actual: Mapping[str, Any]) -> None:
        """Compare with the expected half, or write it."""
        given = {key: value for key, value in self.content.items() if key in {"about", "facts", "mesh", "links"}}
        named = _named(json.loads(msgspec.json.encode(actual)))
        if os.environ.get("GOLDENS") == "update":
            self.path.write_text(json.dumps({**given, **named}, indent=2, ensure_ascii=False) + "\n")
        expected = {key: value for key, value in self.content.items() if key not in given}
        assert named == expected


def cases(folder: str) -> list[Case]:
    """Every file of a folder. There are some: an empty list would test nothing."""
    found = [Case(path, json.loads(path.read_text())) for path in sorted((GOLDENS / folder).glob("*.json"))]
    assert found
    return found


def fact(value: Any) -> Fact[Any]:
    return Fact().learned(value)


@cache
def material() -> Mapping[str, str]:
    """PEM by name. ``other.key`` is the key of no certificate here."""
    authority, other = Authority("Golden CA"), Authority("Other CA")
    pair, stranger = authority.client("gateway"), other.client("gateway")
    return {
        "ca.pem": authority.certificate_pem,
        "other-ca.pem": other.certificate_pem,
        "client.pem": pair.certificate_pem,
        "client.key": pair.private_key_pem,
        "other.key": stranger.private_key_pem,
    }


def _decoded(facts: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Fact[Any]]:
    return {name: _fact(facts[name], type_) for name, type_ in types.items() if name in facts}


def _fact(value: Any, type_: Any, *, bytes_: bool = False) -> Fact[Any]:
    """``{"problem": text}`` is a fact that was never known, ``{"problem": text, "value": ...}`` one that was."""
    problem = value.get("problem") if isinstance(value, dict) else None
    known: Fact[Any] = Fact()
    if problem is None or "value" in value:
        decoded = msgspec.convert(value if problem is None else value["value"], type_)
        known = fact(decoded.encode() if bytes_ else decoded)
    return known if problem is None else known.failed(ConsulUnavailable(problem))


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, str):
        for name, pem in material().items():
            value = value.replace(f"<{name}>", pem)
    return value


def _named(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _named(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_named(inner) for inner in value]
    if isinstance(value, str):
        for name, pem in material().items():
            value = value.replace(pem, f"<{name}>")
    return value
