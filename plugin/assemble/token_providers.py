"""From jwt-provider entries and keys to what a worker checks tokens with.

Pure. A provider that cannot be used is handed on with the reason, and no token of it is valid; the other providers, and
whoever needs no token, are untouched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from plugin.consul.strict import NotUnderstood, shortened
from plugin.facts import Fact, MeshFacts
from plugin.jwks.keyset import read_key_set
from plugin.jwks.provider import InlineKeys, by_name, read_provider
from proxy.rules import TokenProvider


@dataclass(frozen=True, slots=True)
class Providers:
    providers: tuple[TokenProvider, ...]
    """Those that intentions name, by name."""
    warnings: tuple[str, ...] = ()


def token_providers(facts: MeshFacts) -> Providers:
    rows = by_name(facts.providers.value or ())
    found, warnings = [], []
    for name in sorted(facts.wanted_providers):
        provider, warning = _provider(name, rows, facts)
        found.append(provider)
        if warning:
            warnings.append(f"the jwt-provider {shortened(name)}: {warning}")
    return Providers(tuple(found), tuple(warnings))


def answered(facts: MeshFacts) -> bool:
    """Whether all that wanted providers need has come, good or bad."""
    if not facts.wanted_providers:
        return True
    if not facts.providers.known and facts.providers.problem is None:
        return False
    return all(fact.known or fact.problem is not None for fact in _keys_of(facts))


def _keys_of(facts: MeshFacts) -> Iterator[Fact[str]]:
    rows = by_name(facts.providers.value or ())
    for name in facts.wanted_providers & rows.keys():
        try:
            source = read_provider(rows[name]).source
        except NotUnderstood:
            continue
        if not isinstance(source, InlineKeys):
            yield facts.keys.get(source, Fact())


def _provider(name: str, rows: dict[str, Any], facts: MeshFacts) -> tuple[TokenProvider, str]:
    """With what is to be reported; what is merely on its way is not."""
    entries = facts.providers
    if name not in rows and entries.known:
        return _without_keys(name, "there is no such entry; write it with `consul config write`")
    if name not in rows:
        return _without_keys(name, entries.problem)
    try:
        settings = read_provider(rows[name])
        if isinstance(settings.source, InlineKeys):
            keys = read_key_set(settings.source.content)
            return msgspec.structs.replace(settings.provider, keys_json=keys.json), ""
    except NotUnderstood as error:
        return _without_keys(name, f"{error}; correct the entry")
    fact = facts.keys.get(settings.source, Fact())
    if not fact.known or fact.value is None:
        return _without_keys(name, fact.problem)
    since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(fact.as_of_s))
    warning = f"{fact.problem}. The keys of {since} stay in force" if fact.problem is not None else ""
    return msgspec.structs.replace(settings.provider, keys_json=fact.value), warning


def _without_keys(name: str, problem: object | None) -> tuple[TokenProvider, str]:
    why = str(problem) if problem is not None else ""
    return TokenProvider(name, problem=why or "its keys are on their way"), why
