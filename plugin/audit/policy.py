"""Notices which policy each published state brings, and writes the difference to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection

from plugin.audit.journal import Journal
from plugin.workers.published import Published
from proxy.model import Mesh, Service, ServiceName
from proxy.policy.intention_index import intention_text
from proxy.rules import Intention

MOST_TOLD = 50
"""Intentions in one line; more are counted."""

Publish = Callable[..., None]


class PolicyWitness:
    """Stands between who publishes and the workers, and passes everything on."""

    def __init__(
        self, journal: Journal, published: Published, publish: Publish, index_of: Callable[[ServiceName], int]
    ) -> None:
        """``index_of``: Consul's index of the intentions of a service; 0 if that is not known."""
        self._journal = journal
        self._published = published
        self._publish = publish
        self._index_of = index_of
        self._services: dict[ServiceName, tuple[Intention, ...] | None] = {}
        self._default: str | None = None
        self._keys: dict[str, object] = {}
        self.active = False
        """A generation that is only tried changes nothing, and says nothing."""

    def publish(self, names: Collection[ServiceName], *, mesh: bool) -> None:
        """As :meth:`plugin.workers.pool.Workers.publish`, which it calls."""
        self._publish(names, mesh=mesh)
        if self.active and self._journal.wanted:
            # What changed before anything was published is in no list of names.
            known = self._published.services
            for name in {*names, *(known.keys() - self._services.keys())}:
                self._look_at(name, known.get(name))
            self._look_at_mesh(self._published.mesh)

    def _look_at(self, name: ServiceName, service: Service | None) -> None:
        if service is None:
            if name in self._services:
                del self._services[name]
                self._note("policy.unlinked", service=str(name))
            return
        first = name not in self._services
        before, now = self._services.get(name), service.intentions
        self._services[name] = now
        if first or before != now:
            self._note(
                "policy.in_force" if first else "policy.changed",
                service=str(name),
                index=self._index_of(name),
                known=now is not None,
                **_difference(before or (), now or ()),
            )

    def _look_at_mesh(self, mesh: Mesh | None) -> None:
        if mesh is None:
            return
        default = mesh.default_action.value if mesh.default_action is not None else "unknown"
        if default != self._default:
            self._note("policy.default", before=self._default or "", now=default)
            self._default = default
        keys: dict[str, object] = {provider.name: provider for provider in mesh.token_providers}
        if changed := sorted(name for name, provider in keys.items() if self._keys.get(name) != provider):
            self._note("keys.changed", providers=changed)
        self._keys = keys

    def _note(self, event: str, **fields: object) -> None:
        self._journal.note(event, generation=self._published.generation, **fields)


def _difference(before: tuple[Intention, ...], now: tuple[Intention, ...]) -> dict[str, object]:
    """In words; one whose permissions changed is in both lists."""
    added = [_words(one) for one in now if one not in before]
    removed = [_words(one) for one in before if one not in now]
    fields: dict[str, object] = {"added": added[:MOST_TOLD], "removed": removed[:MOST_TOLD]}
    if left_out := max(0, len(added) - MOST_TOLD) + max(0, len(removed) - MOST_TOLD):
        fields["left_out"] = left_out
    return fields


def _words(intention: Intention) -> str:
    """``allow web => db (precedence 9)``, or with the number of its permissions in place of the action."""
    what = f"{len(intention.permissions)} permissions" if intention.permissions else str(intention.action)
    return f"{what} {intention_text(intention)}"
