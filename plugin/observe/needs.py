"""Which files, hostnames and providers the linked services need at the moment, and who is told when one changes.

Counts the users of every path and name, so that reading and resolving starts with the first and ends with the last.
Reading is ``files.py``, resolving is ``dns.py``, the keys of providers are :mod:`plugin.jwks`; here are only the sets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from plugin.addresses import HostPort
from plugin.assemble.endpoints import hostnames
from plugin.assemble.intentions import named_providers
from plugin.facts import Fact, ServiceFacts
from plugin.jwks.keeper import KeyKeeper
from plugin.jwks.provider import KeptKeys
from plugin.observe.dns import Resolver, channels
from plugin.observe.files import FileWatcher
from plugin.observe.store import FactStore
from proxy.model import ServiceName

_Users = dict[str, set[ServiceName]]


class Needs:
    def __init__(self, store: FactStore, dns_servers: Sequence[HostPort] = ()) -> None:
        """``dns_servers`` are asked instead of those of /etc/resolv.conf."""
        self._store = store
        self._files = FileWatcher(self._files_changed)
        self._resolver = Resolver(self._names_changed, make_channel=channels(dns_servers))
        self._paths: dict[ServiceName, frozenset[str]] = {}
        self._names: dict[ServiceName, frozenset[str]] = {}
        self._keys = KeyKeeper(store)
        self._providers: dict[ServiceName, frozenset[str]] = {}
        self._path_users: _Users = {}
        self._name_users: _Users = {}

    async def run(self) -> None:
        """Read and resolve until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._files.run(), name="files of links")
            group.create_task(self._resolver.run(), name="hostnames")
            group.create_task(self._keys.run(), name="keys of providers")

    def know(
        self, addresses: Mapping[str, Fact[tuple[str, ...]]], keys: Mapping[KeptKeys, Fact[str]] | None = None
    ) -> None:
        """Begin with these addresses, by hostname, and these keys, until the first answers."""
        self._resolver.know(addresses)
        self._keys.know(keys or {})

    def read_again(self) -> None:
        """Look at every file and ask for the keys of every provider now, not at the next interval."""
        self._files.check_now()
        self._keys.read_again()

    def renew_keys(self, providers: Collection[str]) -> None:
        """A token has named a key of one of these providers that is not known."""
        self._keys.renew(providers)

    def changed(self, name: ServiceName, facts: ServiceFacts | None) -> None:
        """``facts`` are the newest of a linked service, or ``None`` when it is unlinked."""
        paths = frozenset(path for path in _paths(facts) if path)
        names = hostnames(facts.instances.value or (), facts.defaults.value) if facts is not None else frozenset()
        if paths != self._paths.get(name, frozenset()):
            _replace(self._path_users, name, self._paths.pop(name, ()), paths)
            self._files.set_paths(self._path_users)
            if paths:
                self._paths[name] = paths
            self._tell_files([name])
        if names != self._names.get(name, frozenset()):
            _replace(self._name_users, name, self._names.pop(name, ()), names)
            self._resolver.set_names(self._name_users)
            if names:
                self._names[name] = names
            self._tell_names([name])
        providers = named_providers(facts.intentions.value or ()) if facts is not None else frozenset()
        if providers != self._providers.get(name, frozenset()):
            self._providers.pop(name, None)
            if providers:
                self._providers[name] = providers
            self._store.set_wanted_providers(frozenset().union(*self._providers.values()))

    def _files_changed(self, paths: frozenset[str]) -> None:
        self._tell_files(_users(self._path_users, paths))

    def _names_changed(self, names: frozenset[str]) -> None:
        self._tell_names(_users(self._name_users, names))

    def _tell_files(self, services: Iterable[ServiceName]) -> None:
        for name in services:
            self._store.set_files(name, {path: self._files.fact(path) for path in self._paths.get(name, ())})

    def _tell_names(self, services: Iterable[ServiceName]) -> None:
        for name in services:
            self._store.set_addresses(name, {host: self._resolver.fact(host) for host in self._names.get(name, ())})


def _paths(facts: ServiceFacts | None) -> tuple[str, ...]:
    return (facts.link.ca_file, facts.link.cert_file, facts.link.key_file) if facts is not None else ()


def _replace(users: _Users, name: ServiceName, old: Collection[str], new: Collection[str]) -> None:
    for thing in old:
        if thing not in new:
            users[thing].discard(name)
            if not users[thing]:
                del users[thing]
    for thing in new:
        users.setdefault(thing, set()).add(name)


def _users(users: _Users, things: Iterable[str]) -> set[ServiceName]:
    return {name for thing in things for name in users.get(thing, ())}
