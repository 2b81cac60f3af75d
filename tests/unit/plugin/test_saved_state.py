"""The saved state: what goes in comes back, and what is damaged, foreign or open to others is not used at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from plugin.consul.api import (
    Consumers,
    ExportedService,
    HealthEntry,
    Instance,
    IntentionMatch,
    LinkedService,
    Node,
    ProxyDefaults,
    Root,
    Roots,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.errors import SavedStateRefused
from plugin.facts import Fact
from plugin.jwks.provider import FileKeys, RemoteKeys
from plugin.observe.freshness import Freshness
from plugin.observe.store import FactStore
from plugin.saved_state import file, form, keeper
from plugin.saved_state.form import Owner, SavedState
from plugin.saved_state.keeper import StateKeeper
from proxy.model import Leaf, PeerBundle, ServiceName
from proxy.rules import Action
from tests.support.eventually import eventually

DB, WEB = ServiceName("db"), ServiceName("web")
OWNER = Owner(service="tgw", service_id="tgw-1")
FILE, REMOTE = FileKeys("/keys.json"), RemoteKeys("https://keys.example/jwks", cache_s=60.0, ca_pem="CA")
KEY = "-----BEGIN PRIVATE KEY-----secret"


def filled(leaf_ends_s: float = 9e9) -> FactStore:
    """``db`` is known altogether, ``web`` is linked and nothing else of it is known."""
    store = FactStore()
    store.set_datacenter("dc1")
    store.roots.learned(Roots("r", "T.consul", (Root("r", "PEM", active=True),)), index=7)
    store.mesh.learned(None)
    store.proxy_defaults.learned(ProxyDefaults(config={"protocol": "tcp"}))
    store.default_action.learned(Action.DENY)
    store.service_defaults.learned((ServiceDefaults(name="db", protocol="http"),))
    store.service_resolvers.learned((ServiceResolver(name="other", connect_timeout="3s"),))
    links = (LinkedService(name="db", ca_file="/ca.pem"), LinkedService(name="web"))
    store.entry.learned(TerminatingGatewayEntry(name="tgw", services=links))
    store.gateway_services.learned(())
    store.instances(DB).learned((HealthEntry(node=Node(node="n"), service=Instance(id="db-1", service="db", port=5)),))
    store.intentions(DB).learned((IntentionMatch(source_name="web", destination_name="db", action="allow"),))
    store.leaf(DB).learned(Leaf("chain", KEY, "spiffe://x", "01", 0.0, leaf_ends_s))
    store.providers.learned(({"Kind": "jwt-provider", "Name": "okta", "Issuer": "i"},))
    store.set_keys({FILE: Fact('{"keys":[1]}', True, None, 0, 7.0), REMOTE: Fact('{"keys":[2]}', True, None, 0, 7.0)})
    store.set_addresses(DB, {"db.example": Fact(("192.0.2.1",), True)})
    store.exports.learned((ExportedService(service="db", consumers=Consumers(peers=("cloud",))),))
    store.peers.learned((PeerBundle("cloud", "far.consul", ("PEM",)),))
    return store


def keeping(
    directory: Path, store: FactStore, owner: Owner = OWNER, freshness: Freshness | None = None, generation: int = 0
) -> StateKeeper:
    aging = freshness or Freshness(list)
    return StateKeeper(directory, owner, store, aging, worth_saving=lambda: True, generation=lambda: generation)


@pytest.fixture
async def saved(tmp_path: Path) -> Path:
    """The file of a saved state."""
    await keeping(tmp_path / "state", filled()).save()
    return file.path_of(tmp_path / "state", OWNER)


async def restored(saved: Path, owner: Owner = OWNER) -> tuple[StateKeeper, FactStore]:
    store = FactStore()
    found = keeping(saved.parent, store, owner)
    found.restore()
    return found, store


def content(path: Path) -> bytes:
    return path.read_bytes()


def identity_of(path: Path) -> int:
    """Another number whenever the file was replaced."""
    return path.stat().st_mtime_ns


def mode_of(path: Path) -> int:
    """Without following a link, whose own mode is 0o777."""
    return path.lstat().st_mode & 0o777


async def test_everything_comes_back_as_it_was(saved: Path) -> None:
    store, before = FactStore(), filled()
    rest = keeping(saved.parent, store).restore()
    assert store.linked() == before.linked() == (DB, WEB)
    mine, theirs = store.service_facts(DB), before.service_facts(DB)
    assert mine.link == theirs.link
    assert mine.exported_to == theirs.exported_to == ("cloud",)
    assert store.peers.fact.value == before.peers.fact.value
    for which in ("instances", "intentions", "leaf", "defaults", "resolver"):
        assert getattr(mine, which).value == getattr(theirs, which).value
        assert getattr(mine, which).known
    for which in ("datacenter", "roots", "mesh", "proxy_defaults", "default_action"):
        one, other = getattr(store.mesh_facts(), which), getattr(before.mesh_facts(), which)
        assert getattr(one, "value", one) == getattr(other, "value", other)
    assert store.service_resolvers.of(ServiceName("other")).value == ServiceResolver(name="other", connect_timeout="3s")
    assert rest.addresses["db.example"].value == ("192.0.2.1",)
    assert store.mesh_facts().providers.value == ({"Kind": "jwt-provider", "Name": "okta", "Issuer": "i"},)
    assert {source: fact.value for source, fact in rest.keys.items()} == {FILE: '{"keys":[1]}', REMOTE: '{"keys":[2]}'}
    assert all(fact.known and fact.as_of_s == 7.0 for fact in rest.keys.values())


async def test_what_was_not_known_stays_unknown(saved: Path) -> None:
    _, store = await restored(saved)
    facts = store.service_facts(WEB)
    assert not any(fact.known for fact in (facts.instances, facts.intentions, facts.leaf, facts.sidecars))


@pytest.mark.parametrize(("theirs", "used"), [(6, True), (7, True), (8, False)])
async def test_workers_of_an_earlier_start_never_go_back_to_an_older_state(
    tmp_path: Path, theirs: int, used: bool
) -> None:
    """What was denied after the last save, and before a crash, stays denied."""
    await keeping(tmp_path / "state", filled(), generation=7).save()
    store = FactStore()
    found = keeping(tmp_path / "state", store, generation=theirs)
    found.restore()
    assert (found.restored is not None, bool(store.linked())) == (used, used)
    assert found.problem == ""


async def test_the_file_is_private_and_nothing_else_is_left(saved: Path) -> None:
    assert mode_of(saved) == 0o600
    assert mode_of(saved.parent) == 0o700
    assert list(saved.parent.iterdir()) == [saved]


async def test_a_leaf_that_has_ended_is_not_served(tmp_path: Path) -> None:
    await keeping(tmp_path / "state", filled(leaf_ends_s=time.time() - 1)).save()
    _, store = await restored(file.path_of(tmp_path / "state", OWNER))
    leaf = store.service_facts(DB).leaf
    assert (leaf.known, leaf.value) == (False, None)
    assert "ended at" in str(leaf.problem)
    assert store.service_facts(DB).intentions.known


def flip(place: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return damage


def shorten(size: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size)


def another_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(form.MAGIC) : len(form.MAGIC) + 4] = (form.VERSION + 1).to_bytes(4, "big")
    path.write_bytes(content)


def rewritten(**changes: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(form.encode(msgspec.structs.replace(form.decode(path.read_bytes()), **changes)))

    return change


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def another_shape(path: Path) -> None:
    body = msgspec.msgpack.encode({"owner": 3})
    path.write_bytes(form._HEADER.pack(form.MAGIC, form.VERSION, len(body), hashlib.sha256(body).digest()) + body)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (shorten(0), "cut off"),
    "header alone": (shorten(form._HEADER.size), "cut off"),
    "half": (shorten(200), "cut off"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "cut off or longer"),
    "something else": (lambda path: path.write_bytes(b"x" * 500), "no saved state"),
    "a flipped bit": (flip(-1), "damaged"),
    "a flipped bit of the checksum": (flip(form._HEADER.size - 1), "damaged"),
    "another version": (another_version, "has version 2"),
    "another shape": (another_shape, "cannot be understood"),
    "another gateway": (rewritten(owner=Owner(service="other", service_id="tgw-1")), "of another gateway, other"),
    "without links": (rewritten(entry=None), "lacks the links"),
    "from the future": (rewritten(boot_id="another", saved_at_s=time.time() + 9e6), "set the clock"),
    "readable by the group": (lambda path: path.chmod(0o640), "other users may read"),
    "readable by the world": (lambda path: path.chmod(0o604), "other users may read"),
    "a symbolic link": (link, "symbolic link"),
    "a pipe": (pipe, "no file"),
}


@pytest.mark.parametrize(("fault", "why"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_is_not_right_is_refused_by_name_and_replaced_later(
    saved: Path, fault: Callable[[Path], object], why: str
) -> None:
    fault(saved)
    found, store = await restored(saved)
    assert (found.restored, store.linked(), store.mesh_facts().roots.known) == (None, (), False)
    assert why in found.problem
    assert str(saved) in found.problem
    assert "remove it" in found.problem
    await keeping(saved.parent, filled()).save()
    assert (await restored(saved))[1].linked() == (DB, WEB)
    assert mode_of(saved) == 0o600


async def test_every_cut_is_refused(saved: Path) -> None:
    whole = content(saved)
    for size in range(0, len(whole), 7):
        with pytest.raises(SavedStateRefused):
            form.decode(whole[:size])
    assert form.decode(whole).owner == OWNER


async def test_a_foreign_file_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(SavedStateRefused, match="belongs to user"):
        file.read(saved)
    with pytest.raises(SavedStateRefused, match="chown"):
        file.check_directory(saved.parent)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770])
async def test_a_directory_that_is_open_to_others_is_neither_read_nor_written(saved: Path, mode: int) -> None:
    saved.parent.chmod(mode)
    before = content(saved)
    found, store = await restored(saved)
    assert store.linked() == ()
    assert f"run chmod 700 {saved.parent}" in found.problem
    await found.save()
    assert content(saved) == before


async def test_a_directory_that_is_a_link_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved.parent)
    found = keeping(tmp_path / "link", FactStore())
    found.restore()
    assert "is no directory" in found.problem


async def test_a_disk_that_is_full_leaves_the_old_state_and_is_reported_until_it_is_not(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(saved)
    found = keeping(saved.parent, filled())

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        await found.save()
    assert "No space left on device" in found.problem
    assert content(saved) == before
    assert list(saved.parent.iterdir()) == [saved]
    await found.save()
    assert found.problem == ""


async def test_what_an_earlier_crash_left_is_no_obstacle(saved: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    saved.with_name(f"{saved.name}.new").symlink_to(victim)
    await keeping(saved.parent, filled()).save()
    assert victim.read_text() == "untouched"
    assert list(saved.parent.iterdir()) == [saved]


async def test_the_age_goes_on_while_nothing_runs(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten(ages_s={"roots": 5.0, "intentions": 40.0})(saved)
    state = form.decode(content(saved))
    monkeypatch.setattr(time, "clock_gettime", lambda clock: state.saved_at_boottime_s + 100.0)
    told: list[bool] = []
    freshness = Freshness(list, max_age_s=120.0, stale=told.append)
    keeping(saved.parent, FactStore(), freshness=freshness).restore()
    assert 140.0 <= (freshness.age_s() or 0.0) < 170.0
    # Before the first connection could be let in.
    assert told == [True]


@pytest.mark.parametrize(("since_s", "expected_s"), [(50.0, 50.0), (-30.0, 0.0)])
async def test_after_a_restart_of_the_machine_the_wall_clock_counts(
    saved: Path, since_s: float, expected_s: float
) -> None:
    rewritten(boot_id="another", saved_at_s=time.time() - since_s)(saved)
    assert keeper._seconds_since(form.decode(content(saved))) == pytest.approx(expected_s, abs=20.0)


def test_gateways_share_a_directory(tmp_path: Path) -> None:
    owners = [
        OWNER,
        Owner(service="tgw", service_id="tgw-2"),
        Owner(service="tgw", service_id="tgw/1"),
        Owner(service="tgw", service_id="tgw-1", partition="west"),
    ]
    assert len({file.path_of(tmp_path, owner) for owner in owners}) == len(owners)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "INTERVAL_S", 0.02)


async def test_only_what_changed_is_written_again(saved: Path, quick: None) -> None:
    store = filled()
    found = keeping(saved.parent, store)
    running = asyncio.get_running_loop().create_task(found.run())
    await eventually(lambda: found._saved_version[0] == store.revision)
    first = identity_of(saved)
    store.intentions(DB).learned(store.service_facts(DB).intentions.value)
    await asyncio.wait([running], timeout=0.3)
    assert identity_of(saved) == first
    store.intentions(DB).learned(())
    await eventually(lambda: identity_of(saved) != first)
    running.cancel()
    await asyncio.wait([running])


async def test_what_changed_last_is_saved_at_the_end(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "INTERVAL_S", 3600.0)
    store = filled()
    running = asyncio.get_running_loop().create_task(keeping(saved.parent, store).run())
    await asyncio.sleep(0)
    store.intentions(DB).learned(())
    running.cancel()
    await asyncio.wait([running])
    assert (await restored(saved))[1].service_facts(DB).intentions.value == ()


async def test_what_changed_last_is_saved_also_when_the_end_comes_while_something_is_written(
    saved: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(directory: Path, check: Callable[[Path], None] = file.check_directory) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(30.0)
        check(directory)

    monkeypatch.setattr(file, "check_directory", slow)
    store = filled()
    found = keeping(saved.parent, store)
    running = asyncio.get_running_loop().create_task(found.run())
    await eventually(begun.is_set)
    store.intentions(DB).learned(())
    running.cancel()
    await asyncio.wait([running], timeout=0.2)
    go_on.set()
    await asyncio.wait([running])
    # What a thread still writes is written now.
    await asyncio.get_running_loop().shutdown_default_executor()
    assert found.problem == ""
    assert (await restored(saved))[1].service_facts(DB).intentions.value == ()


async def test_a_state_without_links_replaces_no_other(saved: Path, quick: None) -> None:
    before = content(saved)
    store = filled()
    store.forget()
    running = asyncio.get_running_loop().create_task(keeping(saved.parent, store).run())
    await asyncio.wait([running], timeout=0.3)
    running.cancel()
    await asyncio.wait([running])
    assert content(saved) == before


def test_nothing_shows_a_key() -> None:
    state = SavedState(
        owner=OWNER, datacenter="dc1", saved_at_s=0.0, boot_id="", saved_at_boottime_s=0.0, ages_s={},
        services=(form.SavedService(name=DB, leaf=form.Known(Leaf("chain", KEY, "x", "01", 0.0, 1.0), 0.0)),),
    )  # fmt: skip
    assert "secret" not in repr(state)


async def test_a_value_that_the_form_cannot_hold_is_reported_and_the_file_before_stays(saved: Path) -> None:
    store = filled()
    huge = IntentionMatch(source_name="web", destination_name="db", jwt={"Providers": 2**80})
    store.intentions(DB).learned((huge,))
    before, keeper = content(saved), keeping(saved.parent, store)
    await keeper.save()
    assert "out of range" in keeper.problem
    assert content(saved) == before
