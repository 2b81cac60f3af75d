"""What every worker should have in force: the newest mesh settings and services, numbered by generation.

One mutable object, written by the gateway and read by the workers' channels; the values in it are immutable.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from proxy.messages import Update
from proxy.model import Mesh, Service, ServiceName


@dataclass(slots=True)
class Published:
    generation: int = 0
    """Raised with every change; 0 while nothing is known."""
    mesh: Mesh | None = None
    services: dict[ServiceName, Service] = field(default_factory=dict)
    linked: frozenset[ServiceName] | None = None
    """Every linked service, served or not; ``None`` while not known."""
    complete: bool = False
    """Everything that can be served at the start is here: a worker with nothing yet may begin to accept."""

    def delta(self, names: Collection[ServiceName], *, mesh: bool) -> Update:
        """The newest state of ``names``; those that are no longer here are removals."""
        return Update(
            generation=self.generation,
            mesh=self.mesh if mesh else None,
            upserts=tuple(self.services[name] for name in sorted(names) if name in self.services),
            removals=tuple(name for name in sorted(names) if name not in self.services),
        )

    def full(self) -> Update:
        """Everything. What is linked but not served here stays as a worker may still have it."""
        return Update(
            generation=self.generation,
            mesh=self.mesh,
            upserts=tuple(self.services.values()),
            full=True,
            keep=tuple(sorted((self.linked or frozenset()) - self.services.keys())),
        )
