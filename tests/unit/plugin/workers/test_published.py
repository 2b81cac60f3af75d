from __future__ import annotations

from plugin.workers.published import Published
from proxy.model import Leaf, Mesh, Service, ServiceName

LEAF = Leaf("chain", "key", "spiffe://x", "01", 0.0, 1.0)
MESH = Mesh("x.consul", "dc1", ())
A, B, C = ServiceName("a"), ServiceName("b"), ServiceName("c")


def published() -> Published:
    return Published(5, MESH, {A: Service(A, LEAF, ()), B: Service(B, LEAF, ())}, frozenset({A, B, C}))


def test_a_delta_names_what_is_there_and_what_is_gone() -> None:
    update = published().delta({C, B}, mesh=False)
    assert [service.name for service in update.upserts] == [B]
    assert update.removals == (C,)
    assert (update.generation, update.mesh, update.full) == (5, None, False)


def test_the_mesh_travels_only_when_it_changed() -> None:
    assert published().delta((), mesh=True).mesh == MESH


def test_everything_keeps_what_is_linked_but_not_served_here() -> None:
    update = published().full()
    assert [service.name for service in update.upserts] == [A, B]
    assert update.keep == (C,)
    assert update.full
