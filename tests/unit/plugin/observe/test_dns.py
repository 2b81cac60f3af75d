"""Names are kept resolved, against a DNS server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiodns
import pytest

from plugin.errors import NameUnresolved
from plugin.facts import Fact
from plugin.observe import dns
from plugin.observe.dns import Resolver
from tests.support.dns_server import AAAA, A, DNSServer, dns_server
from tests.support.eventually import eventually

PATIENCE_S = 20.0


class Watched:
    """A running resolver whose changes can be waited for."""

    def __init__(
        self,
        server: DNSServer,
        *,
        timeout_s: float = 5.0,
        ceiling_s: float = 0.05,
        search: Sequence[str] = (),
    ) -> None:
        self.channels = 0
        self._search = list(search)
        self._server = server
        self._changed = asyncio.Event()
        self.resolver = Resolver(
            lambda names: self._changed.set(),
            make_channel=self._channel,
            floor_s=0.02,
            ceiling_s=ceiling_s,
            retry_s=(0.02, 0.05),
            timeout_s=timeout_s,
        )

    def _channel(self) -> aiodns.DNSResolver:
        self.channels += 1
        return aiodns.DNSResolver([self._server.address], tries=1, timeout=2.0, domains=self._search)

    async def until_changed(self) -> None:
        await asyncio.wait_for(self._changed.wait(), PATIENCE_S)
        self._changed.clear()

    async def until(self, name: str, *addresses: str, problem: str = "") -> None:
        """Wait until these are the addresses, and the problem is one that holds ``problem``, or none."""

        def is_so() -> bool:
            fact = self.resolver.fact(name)
            told = str(fact.problem or "")
            return (fact.value or ()) == addresses and (problem in told if problem else not told)

        await eventually(is_so, PATIENCE_S, what=f"{name} has {addresses} and the problem {problem!r}")

    async def until_asked(self, name: str, times: int) -> None:
        await eventually(lambda: self._server.questions[name] >= times, PATIENCE_S, what=f"{name} asked {times} times")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.resolver.run(), name="resolver")
            yield
            task.cancel()


async def test_both_families_are_asked_for_and_sorted() -> None:
    async with dns_server(db_example=["127.0.0.9", "127.0.0.2", "::1"]) as server:
        watched = Watched(server)
        assert not watched.resolver.fact("db.example").known
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until_changed()
            addresses = watched.resolver.addresses["db.example"].value
    assert addresses is not None
    assert server.questions["db.example"] == 2, "one question for each family"
    # ::1 is left out where the host has no IPv6 at all.
    assert addresses in [("127.0.0.2", "127.0.0.9", "::1"), ("127.0.0.2", "127.0.0.9")]


async def test_names_that_were_set_before_it_runs_are_resolved() -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        watched = Watched(server)
        watched.resolver.set_names(["db.example"])
        async with watched.running():
            await watched.until_changed()
            assert watched.resolver.fact("db.example").value == ("127.0.0.2",)


async def test_what_was_known_before_the_start_holds_until_the_first_answer() -> None:
    resolver = Resolver(lambda names: None)
    resolver.know({"db.example": Fact(("192.0.2.9",), True), "unused.example": Fact(("192.0.2.8",), True)})
    resolver.set_names(["db.example", "new.example"])
    assert resolver.fact("db.example").value == ("192.0.2.9",)
    assert not resolver.fact("new.example").known
    assert not resolver.fact("unused.example").known


async def test_a_name_is_asked_again_when_its_ttl_is_over_and_a_change_is_reported() -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        server.ttl_s = 0
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until_changed()
            server.records["db.example"] = ["127.0.0.3"]
            await watched.until_changed()
            assert watched.resolver.fact("db.example").value == ("127.0.0.3",)


async def test_a_name_is_not_asked_again_before_its_ttl_is_over() -> None:
    async with dns_server(slow_example=["127.0.0.2"], fast_example=["127.0.0.3"]) as server:
        server.ttl_s = 3600
        watched = Watched(server, ceiling_s=3600.0)
        async with watched.running():
            watched.resolver.set_names(["slow.example"])
            await watched.until_changed()
            asked = server.questions["slow.example"]
            server.ttl_s = 0
            watched.resolver.set_names(["slow.example", "fast.example"])
            await watched.until_asked("fast.example", 10)
            assert server.questions["slow.example"] == asked


async def test_the_last_answer_stays_when_the_server_fails_and_the_problem_is_told() -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        server.ttl_s = 0
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until_changed()
            server.broken = True
            await watched.until_changed()
            fact = watched.resolver.fact("db.example")
            assert fact.known
            assert fact.value == ("127.0.0.2",)
            assert isinstance(fact.problem, NameUnresolved)
            server.broken = False
            await watched.until_changed()
            assert watched.resolver.fact("db.example").problem is None
    assert watched.channels > 1, "a channel that failed is replaced, so that a new resolv.conf is read"


async def test_an_unknown_name_is_a_problem_with_a_remedy_and_is_asked_again() -> None:
    async with dns_server() as server:
        watched = Watched(server, ceiling_s=3_600.0)
        async with watched.running():
            watched.resolver.set_names(["nobody.example"])
            await watched.until_changed()
            fact = watched.resolver.fact("nobody.example")
            assert not fact.known
            assert "nobody.example cannot be resolved" in str(fact.problem)
            assert "check the name" in str(fact.problem)
            server.records["nobody.example"] = ["127.0.0.2"]
            await watched.until_changed()
            assert watched.resolver.fact("nobody.example").value == ("127.0.0.2",)


async def test_a_silent_server_is_a_problem_after_the_deadline() -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        server.silent = True
        watched = Watched(server, timeout_s=0.2)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until_changed()
            assert "no answer within 0.2 s" in str(watched.resolver.fact("db.example").problem)


async def test_a_name_that_is_no_longer_in_use_is_forgotten_and_not_asked_for() -> None:
    async with dns_server(gone_example=["127.0.0.2"], kept_example=["127.0.0.3"]) as server:
        server.ttl_s = 0
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["gone.example", "kept.example"])
            await watched.until_asked("gone.example", 4)
            watched.resolver.set_names(["kept.example"])
            asked = server.questions["gone.example"]
            assert set(watched.resolver.addresses) == {"kept.example"}
            await watched.until_asked("kept.example", server.questions["kept.example"] + 10)
            # The question that was on its way may still arrive: one for each family.
            assert server.questions["gone.example"] <= asked + 2


@pytest.mark.parametrize("name", ["a" * 300, "bad..name", "\udcff"])
async def test_what_is_no_hostname_is_a_problem_of_that_name_alone(name: str) -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names([name, "db.example"])
            async with asyncio.timeout(PATIENCE_S):
                while not watched.resolver.fact("db.example").known or watched.resolver.fact(name).problem is None:
                    await watched.until_changed()
            assert isinstance(watched.resolver.fact(name).problem, NameUnresolved)


async def test_the_hosts_file_counts() -> None:
    async with dns_server() as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["localhost"])
            await watched.until_changed()
            assert "127.0.0.1" in (watched.resolver.fact("localhost").value or ())


async def test_a_ttl_beyond_the_ceiling_does_not_keep_the_name_from_being_asked_again() -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        server.ttl_s = 86_400
        watched = Watched(server, ceiling_s=0.05)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2")
            server.records["db.example"] = ["127.0.0.3"]
            await watched.until("db.example", "127.0.0.3")


async def test_the_ttl_of_an_alias_counts_too() -> None:
    async with dns_server(first_example=["127.0.0.2"], second_example=["127.0.0.3"]) as server:
        server.ttl_s = 3_600
        server.ttls_s = {"db.example": 0}
        server.aliases = {"db.example": "middle.example", "middle.example": "first.example"}
        watched = Watched(server, ceiling_s=3_600.0)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2")
            server.aliases["db.example"] = "second.example"
            await watched.until("db.example", "127.0.0.3")


@pytest.mark.parametrize("kind", [A, AAAA])
async def test_a_failure_for_one_family_keeps_its_addresses_and_is_told(kind: int) -> None:
    async with dns_server(db_example=["127.0.0.2", "::1"]) as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2", "::1")
            server.broken_for.add(("db.example", kind))
            await watched.until("db.example", "127.0.0.2", "::1", problem="db.example cannot be resolved")
            server.broken_for.clear()
            await watched.until("db.example", "127.0.0.2", "::1")


async def test_a_family_that_is_gone_is_dropped() -> None:
    async with dns_server(db_example=["127.0.0.2", "::1"]) as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2", "::1")
            server.records["db.example"] = ["127.0.0.2"]
            await watched.until("db.example", "127.0.0.2")
            server.records["db.example"] = ["::1"]
            await watched.until("db.example", "::1")


@pytest.mark.parametrize("what", ["deleted", "without addresses"])
async def test_a_name_that_is_gone_keeps_its_last_addresses_and_is_told(what: str) -> None:
    async with dns_server(db_example=["127.0.0.2"]) as server:
        server.ttl_s = 0
        watched = Watched(server, ceiling_s=3_600.0)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2")
            if what == "deleted":
                del server.records["db.example"]
            else:
                server.records["db.example"] = []
            await watched.until("db.example", "127.0.0.2", problem="db.example cannot be resolved")
            server.records["db.example"] = ["127.0.0.3"]
            await watched.until("db.example", "127.0.0.3")


async def test_names_without_an_answer_do_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_AT_ONCE", 2)
    monkeypatch.setattr(dns, "_SLOW_S", 0.05)
    async with dns_server(zz_example=["127.0.0.2"]) as server:
        dead = [f"dead-{number}.example" for number in range(6)]
        server.silent_for = {(name, kind) for name in dead for kind in (A, AAAA)}
        watched = Watched(server, timeout_s=3_600.0)
        async with watched.running():
            watched.resolver.set_names([*dead, "zz.example"])
            await watched.until("zz.example", "127.0.0.2")
            for name in dead:
                await watched.until(name, problem="none yet")
            assert not any(watched.resolver.fact(name).known for name in dead)


async def test_a_slow_answer_about_a_known_name_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_SLOW_S", 0.01)
    async with dns_server(db_example=["127.0.0.2"]) as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", "127.0.0.2")
            server.silent = True
            asked = server.questions["db.example"]
            await watched.until_asked("db.example", asked + 2)
            await asyncio.sleep(0.1)
            assert watched.resolver.fact("db.example").problem is None


async def test_more_addresses_than_fit_into_a_datagram_are_all_learned() -> None:
    addresses = [f"127.0.{third}.{last}" for third in range(4) for last in range(1, 101)]
    async with dns_server(db_example=addresses) as server:
        watched = Watched(server)
        async with watched.running():
            watched.resolver.set_names(["db.example"])
            await watched.until("db.example", *addresses)
        assert server.streams


async def test_search_domains_are_for_names_that_do_not_exist_as_they_are() -> None:
    async with dns_server(db_example=["127.0.0.2"], db_example_corp=["127.0.0.9"]) as server:
        server.records |= {"only.here.corp": ["127.0.0.3"], "short.corp": ["127.0.0.4"]}
        watched = Watched(server, search=["corp"])
        async with watched.running():
            watched.resolver.set_names(["db.example", "only.here", "short", "db.example."])
            await watched.until("db.example", "127.0.0.2")
            await watched.until("db.example.", "127.0.0.2")
            await watched.until("only.here", "127.0.0.3")
            await watched.until("short", "127.0.0.4")
        assert server.questions["db.example.corp"] == 0
