"""Blocking queries as a state machine: replies and the time go in; polls, pauses and values come out.

It does no IO and reads no clock; :mod:`plugin.consul.poller` drives it. The rules:

1. The first poll, and every poll after the index was lost, asks with index 0, which is answered at once and believed.
2. A reply with a greater index is news if its content differs; the next poll blocks on that index.
3. A reply with the same index ends a wait; the next poll blocks again. Its content is compared all the same: what a
   token may see changes without the index.
4. A reply with a lower index (a restored or replaced server) is not believed: the next poll asks with index 0.
5. Index 0 is taken as 1, since 0 would not block. Without an index (``intentions/match`` of Consul 1.8) the endpoint
   cannot block and is asked again after a pause.
6. 404 with an index is knowledge, *there is none*. 404 without one is a refusal.
7. No reply, 5xx, 429, or a body that cannot be read: ask again after a growing pause with jitter, without end. 403:
   every second or two, so that a right that is given takes effect; :mod:`plugin.consul.refusals` bounds the sum. Other
   refusals: after a long pause. The next poll asks with index 0: blocking on an index that is still current would hide
   for a minute that all is well again.
8. Polls that follow each other too fast spend tokens of a bucket, so that a hot key costs a bounded rate. Where
   promptness matters it is a higher one, as long as the answers are small.
9. A failure never changes the value.
10. When the token may read more than before, pauses end at once, and the next poll asks with index 0.
11. A kind of config entry that this Consul is too old for is knowledge too: there is none. An upgrade is noticed, since
   the next poll comes after a long pause.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tenacity import RetryCallState, Retrying, wait_fixed, wait_random, wait_random_exponential
from tenacity.wait import wait_base

from plugin.consul.transport import Reply
from plugin.errors import ConfigError, ConsulForbidden, ConsulRejected, GatewayError, NotTold, UnknownKind

T = TypeVar("T")

WAIT_S = 55.0
"""A poll that is abandoned keeps its connection slot in the agent until its wait is over, hence well below 60."""
UNINDEXED_PAUSE_S = 5.0
BURST = 10
POLLS_PER_S = 2.0
PROMPT_POLLS_PER_S = 10.0
PROMPT_BYTES_PER_S = 5_000_000
"""Of answers: what a hot key may cost beyond ``POLLS_PER_S``."""
UNKNOWN_KIND_PAUSE_S = 60.0
NOT_TOLD_PAUSE_S = 5.0
"""Of what was never told; whoever gives the right waits for it."""

RETRY: wait_base = wait_fixed(0.1) + wait_random_exponential(multiplier=0.2, max=8.0)
"""After faults that pass by themselves."""
RETRY_FORBIDDEN: wait_base = wait_fixed(1.0) + wait_random(0.0, 1.0)
"""While the token lacks a right, or is not known: an operator who mends it waits for the effect."""
RETRY_REJECTED: wait_base = wait_fixed(8.0) + wait_random(0.0, 4.0)
"""After other refusals, which last until somebody changes the agent or the settings."""


@dataclass(frozen=True, slots=True)
class Poll:
    """Ask now."""

    index: int
    """0: do not block."""
    wait_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask for the next step again at ``until_s``."""

    until_s: float


@dataclass(frozen=True, slots=True)
class News(Generic[T]):
    """What a good reply said."""

    value: T | None
    """``None`` when Consul said that there is none."""
    index: int
    changed: bool
    """Differs from the value before, or is the first one."""
    woken: bool
    """The index moved, or the first reply: something in the neighbourhood changed, maybe not the value."""


class Backoff:
    """Seconds to pause after the n-th failure in a row, by one of tenacity's schedules."""

    def __init__(self) -> None:
        self._state = RetryCallState(Retrying(), None, (), {})
        self.failures = 0

    def failed(self, problem: GatewayError) -> float:
        self.failures += 1
        # The schedules are capped; an attempt number without bound would overflow their exponent in a long outage.
        self._state.attempt_number = min(self.failures, 32)
        return float(_schedule(problem)(self._state))

    def succeeded(self) -> None:
        self.failures = 0


def _schedule(problem: GatewayError) -> wait_base:
    if isinstance(problem, ConsulForbidden):
        return RETRY_FORBIDDEN
    return RETRY_REJECTED if isinstance(problem, ConsulRejected | ConfigError) else RETRY


class Bucket:
    """A token bucket; :meth:`take` says how long to wait for the token that it takes."""

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self.per_second = per_second
        self._tokens = burst
        self._at_s: float | None = None

    def take(self, now_s: float) -> float:
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s
        self._tokens -= 1
        return max(0.0, -self._tokens / self.per_second)

    def give_back(self) -> None:
        """The token that was taken was not needed."""
        self._tokens = min(self._burst, self._tokens + 1)


class Watch(Generic[T]):
    """One blocking query, for ever. ``decode`` turns a reply of status 200 into the value and raises GatewayError
    when it cannot."""

    def __init__(self, decode: Callable[[Reply], T | None], *, wait_s: float = WAIT_S, prompt: bool = False) -> None:
        """``prompt``: a hot key is asked for up to ``PROMPT_POLLS_PER_S``."""
        self._decode = decode
        self._prompt = prompt
        self._wait_s = wait_s
        self._bucket = Bucket(BURST, POLLS_PER_S)
        self._backoff = Backoff()
        self._not_before_s = 0.0
        self._paid = False
        self._digest: bytes | None = None
        self.value: T | None = None
        self.known = False
        self.index = 0
        self.requests = 0
        self.confirmed_s: float | None = None
        """When the last good reply came, on the caller's clock."""
        self.problem: GatewayError | None = None
        self.note = ""
        """Why there is no value although nothing is wrong."""
        self.filtered = False
        """The newest good reply lacks what the token may not read (Consul 1.11 and later say so)."""

    def next(self, now_s: float) -> Poll | Pause:
        if not self._paid:
            self._not_before_s = max(self._not_before_s, now_s + self._bucket.take(now_s))
            self._paid = True
        if now_s < self._not_before_s:
            return Pause(self._not_before_s)
        self._paid = False
        self.requests += 1
        return Poll(self.index, self._wait_s if self.index else 0.0)

    def receive(self, reply: Reply, now_s: float) -> News[T] | None:
        """Take a reply of status 200 or 404; ``None`` when it says nothing that is to be believed."""
        if reply.status == 404 and reply.index is None:
            self.fail(ConsulRejected("this Consul does not have this endpoint (404)", 404), now_s)
            return None
        index = None if reply.index is None else max(1, reply.index)
        if index is not None and self.index and index < self.index:
            self.index = 0
            return None
        try:
            changed = self._take(reply)
        except GatewayError as problem:
            self.fail(problem, now_s)
            return None
        woken = index is None or index != self.index or self.confirmed_s is None
        self.index = index or 0
        self.filtered = reply.filtered
        if self._prompt:
            affordable = PROMPT_BYTES_PER_S / max(1, len(reply.body))
            self._bucket.per_second = max(POLLS_PER_S, min(PROMPT_POLLS_PER_S, affordable))
        self._succeeded(now_s, pause_s=0.0 if index else UNINDEXED_PAUSE_S * random.uniform(0.9, 1.1))
        return News(self.value, self.index, changed, woken)

    def fail(self, problem: GatewayError, now_s: float) -> None:
        """There was no usable reply."""
        self.problem = problem
        self.index = 0
        self._not_before_s = now_s + self._backoff.failed(problem)

    def unknown_kind(self, problem: UnknownKind, now_s: float) -> News[T]:
        """Take the answer of a Consul that is older than what was asked for, or that does not tell it to this token."""
        changed = not self.known or self.value is not None
        self.value, self._digest, self.known, self.index = None, None, True, 0
        pause_s = NOT_TOLD_PAUSE_S if isinstance(problem, NotTold) else UNKNOWN_KIND_PAUSE_S
        self._succeeded(now_s, pause_s * random.uniform(0.9, 1.1))
        self.note = str(problem)
        return News(None, 0, changed, changed)

    def postpone(self, seconds: float) -> None:
        """Let the next poll wait longer than the failure alone asks for."""
        self._not_before_s += seconds

    def ask_afresh(self) -> None:
        """The token may read more: whatever was answered or is paused for, the next poll comes at once."""
        self.index = 0
        self._not_before_s = 0.0

    def forget(self) -> None:
        """Know nothing again."""
        self.value, self._digest, self.known, self.confirmed_s = None, None, False, None
        self.ask_afresh()

    def is_outdated_by(self, reply: Reply) -> bool:
        """Whether a reply that somebody else got to the same question says something else than the newest one here."""
        return self.known and _digest(reply) != self._digest

    def _succeeded(self, now_s: float, pause_s: float) -> None:
        self.problem = None
        self.note = ""
        self.confirmed_s = now_s
        self._backoff.succeeded()
        self._not_before_s = now_s + pause_s

    def _take(self, reply: Reply) -> bool:
        absent, digest = reply.status == 404, _digest(reply)
        if self.known and digest == self._digest:
            return False
        value = None if absent else self._decode(reply)
        changed = not self.known or value != self.value
        self.value, self._digest, self.known = value, digest, True
        return changed


def _digest(reply: Reply) -> bytes:
    content = b"" if reply.status == 404 else hashlib.blake2b(reply.body, digest_size=16).digest()
    return content + b"filtered" if reply.filtered else content
