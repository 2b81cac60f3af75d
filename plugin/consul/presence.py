"""Whether the agent is there, and whether it is still of the cluster that our state is of.

After every failure the two are in doubt, and one small question decides for all readers: the trust domain of the mesh,
asked of the servers, which have to be done with reading their log (``consistent``): until then they answer with a state
of the past, an older policy with it. Until it is answered no other answer is believed: a Consul that has lost its data
says that nothing is linked and that nobody is denied. While there is no answer nobody else asks; when it comes
everybody is told.

A Consul of another trust domain is another one. As long as it knows nothing of this gateway it counts as away. When it
has a terminating-gateway entry for it, everything that is known of the former one is forgotten, at once and together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec
from tenacity import RetryCallState, Retrying, wait_fixed, wait_random_exponential
from tenacity.wait import wait_base

from plugin.consul import endpoints
from plugin.consul.transport import Reply, Transport
from plugin.errors import (
    ConfigError,
    ConsulError,
    ConsulForbidden,
    ConsulRejected,
    ConsulReplaced,
    ConsulUnavailable,
    GatewayError,
)
from plugin.process import tasks
from proxy.logs import emit
from proxy.policy.identity import IdentityError, parse_spiffe_id

logger = logging.getLogger(__name__)

RETRY: wait_base = wait_fixed(0.1) + wait_random_exponential(multiplier=0.1, max=1.0)
"""One question of each gateway, so it can come often; the jitter keeps a fleet from coming together."""


class _Roots(msgspec.Struct, rename="pascal"):
    trust_domain: str = ""


class Presence:
    """Shared by all who ask over one client; of no effect before :meth:`watch`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._gateway = ""
        self._returned: Callable[[], None] = lambda: None
        self._closed = False
        self._replaced: Callable[[], None] = lambda: None
        self._certain = asyncio.Event()
        """Nothing is in doubt: the agent is there, or it is known to be away."""
        self._certain.set()
        self._back = asyncio.Event()
        """Set when the agent is back, then made anew."""
        self._probing: asyncio.Task[None] | None = None
        self.trust_domain = ""
        """Of the cluster that our state is of; empty while not known."""
        self._datacenter = ""
        """Of a restored state, until the agent is known to be of it."""
        self.problem: ConsulUnavailable | None = None
        """Why nobody asks at the moment."""
        self._cluster = 0
        """How many other clusters were accepted."""

    def watch(self, gateway: str, *, returned: Callable[[], None], replaced: Callable[[], None]) -> None:
        """Mind failures from now on. ``returned`` is called when the agent is back, ``replaced`` when it is of another
        cluster that knows ``gateway``: what is known of the former one must be forgotten."""
        self._gateway, self._returned, self._replaced = gateway, returned, replaced

    def expect(self, trust_domain: str) -> bool:
        """Say of which cluster our state is. False when it is known to be of another one, which is then in doubt."""
        if not self.trust_domain:
            self.trust_domain = trust_domain
        if trust_domain == self.trust_domain:
            return True
        self.doubt()
        return False

    def expect_restored(self, trust_domain: str, datacenter: str) -> None:
        """Our state is from an earlier start: nothing is believed before the agent is known to be of its cluster."""
        self.trust_domain, self._datacenter = trust_domain, datacenter
        self.doubt()

    async def admit(self) -> int:
        """Wait until something may be asked; the result is for :meth:`believe`.

        :raises ConsulUnavailable: while the agent is away.
        """
        await self._certain.wait()
        if self.problem is not None:
            raise self.problem
        return self._cluster

    async def believe(self, cluster: int) -> None:
        """Return when an answer may be believed that was asked for after ``cluster = await admit()``.

        :raises ConsulUnavailable: when it may come from a Consul that ours is not.
        """
        await self._certain.wait()
        if self.problem is not None:
            raise self.problem
        if cluster != self._cluster:
            raise ConsulUnavailable("Consul was replaced while it was asked")

    def doubt(self) -> None:
        """A question was not answered, or not as it should be: make sure before anything more is believed."""
        if self._gateway and self._probing is None and not self._closed:
            self._certain.clear()
            self._probing = tasks.spawn(self._make_sure(), name="presence of Consul")

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until the agent is back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._back.wait()

    async def close(self) -> None:
        self._closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _make_sure(self) -> None:
        attempts = RetryCallState(Retrying(), None, (), {})
        began_s = time.monotonic()
        try:
            while (problem := await self._ask()) is not None:
                self._away(problem)
                # The schedule is capped; an attempt number without bound would overflow its exponent.
                attempts.attempt_number = min(attempts.attempt_number + 1, 32)
                await asyncio.sleep(RETRY(attempts))
        finally:
            self._probing = None
        was_away, self.problem = self.problem is not None, None
        self._certain.set()
        if was_away:
            emit(logger, logging.INFO, "consul.back", f"Consul answers again, after {time.monotonic() - began_s:.1f} s")
            self._back.set()
            self._back = asyncio.Event()
            self._returned()

    def _away(self, problem: ConsulUnavailable) -> None:
        if type(problem) is not type(self.problem):
            emit(logger, logging.WARNING, "consul.away", f"the last state stays in force: {problem}")
        self.problem = problem
        self._certain.set()

    async def _ask(self) -> ConsulUnavailable | None:
        """``None`` when the agent is there and its answers count."""
        try:
            found = _trust_domain(await self._transport.request("GET", endpoints.SERVER_ROOTS, endpoints.CONSISTENT))
            if self.trust_domain and found != self.trust_domain:
                await self._meet(found, f"trust domain {found or 'none'}, not {self.trust_domain}")
            elif self._datacenter and (moved := await self._other_datacenter()):
                await self._meet(found, f"datacenter {moved}, not {self._datacenter}")
            self._datacenter = ""
        except ConsulUnavailable as problem:
            return problem
        except (ConsulError, ConfigError) as problem:
            return ConsulUnavailable(str(problem))
        return None

    async def _other_datacenter(self) -> str:
        """The agent's, if it is not that of the restored state; empty also while nobody may say."""
        for path, read in ((endpoints.AGENT_SELF, _of_agent), (endpoints.leaf(self._gateway), _of_leaf)):
            try:
                found = read(await self._transport.request("GET", path))
            except (ConsulForbidden, ConsulRejected):
                continue
            if found:
                return found if found != self._datacenter else ""
        return ""

    async def _meet(self, found: str, how: str) -> None:
        """Go over to another cluster if it has an entry for us. :raises ConsulReplaced: when it has none."""
        path = endpoints.config("terminating-gateway", self._gateway)
        said = f"the Consul at {self._transport.address} is not the one that the last state is of"
        said += f" ({how})"
        remedy = "; restore its data, or write the entry, with the intentions before it"
        if not found:
            raise ConsulReplaced(f"{said}: it has no mesh CA{remedy}")
        try:
            reply = await self._transport.request("GET", path)
        except GatewayError as problem:
            raise ConsulReplaced(f"{said}, and the entry of {self._gateway} cannot be read: {problem}") from problem
        if reply.status == 404:
            raise ConsulReplaced(f"{said}, and it has no terminating-gateway entry {self._gateway}{remedy}")
        message = f"{said}, and it has a terminating-gateway entry {self._gateway}: going over to it"
        emit(logger, logging.WARNING, "consul.replaced", message)
        self.trust_domain = found
        self._cluster += 1
        self._replaced()


def _trust_domain(reply: Reply) -> str:
    """Empty when the answer is that there is no mesh. :raises ConsulUnavailable: when it cannot be read."""
    if reply.status == 404:
        return ""
    try:
        return msgspec.json.decode(reply.body, type=_Roots).trust_domain
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConsulUnavailable(f"Consul's answer about its roots cannot be read: {error}") from error


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    datacenter: str = ""


class _Agent(msgspec.Struct, rename="pascal"):
    config: _Config = _Config()


class _Leaf(msgspec.Struct, rename={"service_uri": "ServiceURI"}):
    service_uri: str = ""


def _of_agent(reply: Reply) -> str:
    """:raises ConsulUnavailable: when it cannot be read."""
    try:
        return msgspec.json.decode(reply.body, type=_Agent).config.datacenter if reply.status == 200 else ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConsulUnavailable(f"Consul's answer about the agent cannot be read: {error}") from error


def _of_leaf(reply: Reply) -> str:
    """:raises ConsulUnavailable: when it cannot be read; its text never quotes the leaf."""
    try:
        uri = msgspec.json.decode(reply.body, type=_Leaf).service_uri if reply.status == 200 else ""
        return parse_spiffe_id(uri).datacenter if uri else ""
    except (msgspec.DecodeError, UnicodeDecodeError, IdentityError) as error:
        raise ConsulUnavailable("Consul's answer about the gateway's leaf cannot be read") from error
