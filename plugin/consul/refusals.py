"""When to ask again what Consul refused: soon, so that a right that is given takes effect, but at a bounded rate.

An operator who extends a policy tells nobody. So everything that is refused is asked again every second or two, all of
it together at no more than a few questions a second, however much there is. As soon as one of the answers has changed,
the rest is asked at once: whoever gave one right has probably given others. It asks nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable

from plugin.consul.watch import Bucket

BURST = 10
PER_S = 10.0
"""Questions about what was refused, of one gateway."""
QUIET_S = 1.0
"""One answer after the other changes then; everybody is told once, and what is refused still asks by itself."""


class Refusals:
    """Shared by all who ask over one client."""

    def __init__(self) -> None:
        self._bucket = Bucket(BURST, PER_S)
        self._listeners: list[Callable[[], None]] = []
        self._told_s: float | None = None

    def listen(self, listener: Callable[[], None]) -> None:
        """``listener`` is called when the token may be allowed more than it was."""
        self._listeners.append(listener)

    def wait_s(self, now_s: float) -> float:
        """Seconds to wait beyond one's own pause before asking again what was refused."""
        return self._bucket.take(now_s)

    def lifted(self, now_s: float) -> None:
        """Something that was refused is allowed now."""
        if self._told_s is None or now_s - self._told_s >= QUIET_S:
            self.rights_changed(now_s)

    def rights_changed(self, now_s: float) -> None:
        """The token is another one, or its policies are."""
        self._told_s = now_s
        for listener in self._listeners:
            listener()
