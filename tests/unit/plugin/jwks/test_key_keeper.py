"""The keys of providers over time: from files and from real servers, rotated, broken, gone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plugin.facts import Fact
from plugin.jwks.keeper import KeyKeeper
from plugin.jwks.provider import FileKeys, RemoteKeys, read_provider
from plugin.observe.store import FactStore
from plugin.process.tasks import spawn
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer, SigningKey, key_set, kids, remote

OLD, NEW = SigningKey("old"), SigningKey("new")
QUICKLY = {"RetryPolicy": {"RetryPolicyBackOff": {"BaseInterval": "20ms", "MaxInterval": "50ms"}}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyServer]:
    async with KeyServer(tmp_path, key_set(OLD)) as server:
        yield server


@contextlib.asynccontextmanager
async def keeping(store: FactStore, before: dict[Any, Fact[str]] | None = None) -> AsyncIterator[KeyKeeper]:
    keeper = KeyKeeper(store)
    keeper.know(before or {})
    task = spawn(keeper.run(), name="keeper")
    try:
        yield keeper
    finally:
        task.cancel()


def row(key_set: dict[str, Any], name: str = "okta") -> dict[str, Any]:
    return {"Name": name, "JSONWebKeySet": key_set}


def wanting(*rows: dict[str, Any]) -> FactStore:
    store = FactStore()
    store.set_wanted_providers(frozenset({"okta"}))
    store.providers.learned(rows)
    return store


def fact(store: FactStore) -> Fact[str]:
    """Of the only source."""
    return next(iter(store.mesh_facts().keys.values()), Fact())


def held(store: FactStore) -> list[str]:
    return kids(fact(store).value or "")


def problem(store: FactStore) -> str:
    return str(fact(store).problem or "")


async def test_remote_keys_are_fetched_and_fetched_again_before_they_expire(server: KeyServer) -> None:
    store = wanting(row(remote(server, CacheDuration="1s")))
    async with keeping(store):
        await eventually(lambda: held(store) == ["old"])
        server.serve(OLD, NEW)
        await eventually(lambda: held(store) == ["old", "new"])
        server.serve(NEW)
        await eventually(lambda: held(store) == ["new"])


async def test_good_keys_stay_while_the_server_is_away_and_that_is_reported(server: KeyServer, tmp_path: Path) -> None:
    store = wanting(row(remote(server, CacheDuration="1s", **QUICKLY)))
    async with keeping(store):
        await eventually(lambda: held(store) == ["old"])
        as_of_s = fact(store).as_of_s
        server.status = 503
        await eventually(lambda: "status 503" in problem(store))
        assert held(store) == ["old"]
        assert fact(store).as_of_s >= as_of_s
        server.serve(NEW)
        server.status = 200
        await eventually(lambda: held(store) == ["new"] and not problem(store))


async def test_a_server_that_was_never_there_is_asked_until_it_is(tmp_path: Path) -> None:
    server = KeyServer(tmp_path, key_set(OLD))
    store = wanting(row(remote(server, **QUICKLY)))
    async with keeping(store):
        await eventually(lambda: problem(store))
        assert not fact(store).known
        async with server:
            await eventually(lambda: held(store) == ["old"])


async def test_saved_keys_are_good_until_the_first_answer(tmp_path: Path) -> None:
    server = KeyServer(tmp_path, key_set(NEW))
    entry = row(remote(server, **QUICKLY))
    source = read_provider(entry).source
    store = wanting(entry)
    async with keeping(store, {source: Fact(key_set(OLD).decode(), True, None, 0, 7.0)}):
        await eventually(lambda: problem(store))
        assert held(store) == ["old"]
        assert fact(store).as_of_s == 7.0
        async with server:
            await eventually(lambda: held(store) == ["new"])


async def test_another_address_has_other_keys(server: KeyServer, tmp_path: Path) -> None:
    """What was fetched for the entry before is not taken for what the entry says now."""
    store = wanting(row(remote(server)))
    async with keeping(store):
        await eventually(lambda: held(store) == ["old"])
        changed = {**remote(server, **QUICKLY)["Remote"], "URI": "https://127.0.0.1:1/keys"}
        store.providers.learned((row({"Remote": changed}),))
        assert not fact(store).known
        await eventually(lambda: problem(store))
        assert not fact(store).known


async def test_an_entry_that_goes_takes_its_keys_along(server: KeyServer) -> None:
    store = wanting(row(remote(server)))
    async with keeping(store) as keeper:
        await eventually(lambda: held(store) == ["old"])
        store.providers.learned(())
        assert store.mesh_facts().keys == {}
        store.providers.learned((row(remote(server)),))
        await eventually(lambda: held(store) == ["old"])
        store.set_wanted_providers(frozenset())
        assert store.mesh_facts().keys == {}
        asked = len(server.asked)
        keeper.read_again()
        assert len(server.asked) == asked


async def test_providers_that_need_the_same_share_one_fetch(server: KeyServer) -> None:
    store = FactStore()
    store.set_wanted_providers(frozenset({"one", "two", "three"}))
    store.providers.learned(tuple(row(remote(server), name) for name in ("one", "two", "three", "unwanted")))
    async with keeping(store):
        await eventually(lambda: held(store) == ["old"])
        assert len(server.asked) == 1
        assert len(store.mesh_facts().keys) == 1


async def test_a_reread_fetches_now(server: KeyServer) -> None:
    store = wanting(row(remote(server, CacheDuration="1h")))
    async with keeping(store) as keeper:
        await eventually(lambda: held(store) == ["old"])
        server.serve(NEW)
        keeper.read_again()
        await eventually(lambda: held(store) == ["new"])


async def test_tokens_of_unknown_keys_make_it_ask_now_and_not_again_and_again(server: KeyServer) -> None:
    store = wanting(row(remote(server, CacheDuration="1h")))
    async with keeping(store) as keeper:
        keeper.renew(["okta"])
        await eventually(lambda: held(store) == ["old"])
        server.serve(NEW)
        keeper.renew(["auth0"])
        keeper.renew(["auth0", "okta"])
        await eventually(lambda: held(store) == ["new"])
        asked = len(server.asked)
        server.serve(OLD, NEW)
        for _ in range(100):
            keeper.renew(["okta"])
        keeper._renewed_s.clear()
        keeper.renew(["okta"])
        await eventually(lambda: held(store) == ["old", "new"])
        assert len(server.asked) == asked + 1


async def test_a_server_that_fails_is_not_asked_more_often_for_tokens(server: KeyServer) -> None:
    slowly = {"RetryPolicy": {"RetryPolicyBackOff": {"BaseInterval": "1h", "MaxInterval": "1h"}}}
    store = wanting(row(remote(server, CacheDuration="1h", **slowly)))
    async with keeping(store) as keeper:
        await eventually(lambda: held(store) == ["old"])
        server.status = 503
        keeper.read_again()
        await eventually(lambda: problem(store))
        asked = len(server.asked)
        keeper.renew(["okta"])
        keeper._renewed_s.clear()
        keeper.renew(["okta"])
        server.status = 200
        server.serve(NEW)
        keeper.read_again()
        await eventually(lambda: held(store) == ["new"])
        assert len(server.asked) == asked + 1


async def test_a_file_of_keys_that_is_broken_leaves_the_last_good_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(OLD))
    store = wanting(row({"Local": {"Filename": str(path)}}))
    async with keeping(store) as keeper:
        await eventually(lambda: held(store) == ["old"])
        path.write_bytes(b"secret, and no key set")
        keeper.read_again()
        await eventually(lambda: "no JSON Web Key Set" in problem(store))
        assert "secret" not in problem(store)
        assert held(store) == ["old"]
        path.write_bytes(key_set(NEW))
        keeper.read_again()
        await eventually(lambda: held(store) == ["new"] and not problem(store))
        path.unlink()
        keeper.read_again()
        await eventually(lambda: "does not exist" in problem(store))
        assert held(store) == ["new"]


async def test_roots_in_a_file_are_waited_for_and_followed(server: KeyServer, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    trusted = {"TLSCertificates": {"TrustedCA": {"Filename": str(path)}}}
    source = {"Remote": {"URI": server.uri, "JWKSCluster": trusted, "CacheDuration": "1h", **QUICKLY}}
    store = wanting(row(source))
    async with keeping(store):
        await eventually(lambda: "does not exist" in problem(store))
        path.write_text(server.authority.certificate_pem)
        await eventually(lambda: held(store) == ["old"])


async def test_nothing_is_kept_after_the_end() -> None:
    store = FactStore()
    async with keeping(store):
        pass
    store.set_wanted_providers(frozenset({"okta"}))
    store.providers.learned((row({"Local": {"Filename": "/x"}}),))
    assert store.mesh_facts().keys == {}


def test_sources_are_told_apart() -> None:
    assert FileKeys("a") != FileKeys("b")
    assert RemoteKeys("a") != RemoteKeys("a", ca_pem="x")
