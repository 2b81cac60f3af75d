"""What a simulation says: the answer of ``/api/simulate``, typed."""

from __future__ import annotations

import msgspec


class Access(msgspec.Struct, frozen=True):
    kind: str
    """``allowed``, ``denied``, ``by_request`` (permissions or tokens decide about each request), or ``none``: the
    service is not served."""
    by: str = ""
    """The intention, or the default."""


class ServiceChange(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    before: str
    """``served``, ``not served`` or ``not linked``."""
    after: str
    differences: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """Why the new state could not be served, or what it would have to do without; only what is new."""


class AccessChange(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    source: str
    """``peer:name``; ``*`` is everybody that no intention names."""
    effect: str
    """``gains``, ``loses`` or ``changes`` (other requests than before)."""
    before: Access
    after: Access


class CutConnection(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """``WORKER-NUMBER``."""
    service: str
    source: str
    client: str
    opened_at_s: float
    why: str
    request: str = ""
    """The request under way that would be ended; the connection would stay."""


class RequestChange(msgspec.Struct, frozen=True, kw_only=True):
    """Of requests that have come lately: those that would be decided otherwise."""

    service: str
    source: str
    request: str
    """``GET /path``."""
    requests: int
    before: str
    """What decided, in words."""
    after: str
    effect: str
    """``gains`` or ``loses``."""


class Simulation(msgspec.Struct, frozen=True, kw_only=True):
    entries: tuple[str, ...]
    """``service-intentions db``"""
    services: tuple[ServiceChange, ...] = ()
    access: tuple[AccessChange, ...] = ()
    connections_cut: int = 0
    """Connections and requests."""
    connections: tuple[CutConnection, ...] = ()
    """The first of them."""
    requests: tuple[RequestChange, ...] = ()
    problems: tuple[str, ...] = ()
    """What is wrong with the entries, and what could not be looked at."""
    remarks: tuple[str, ...] = ()
    generation: int = 0

    harms: bool = False
    """Somebody loses something, or something is wrong."""

    def judged(self) -> Simulation:
        """With :attr:`harms` as the rest of it says."""
        effects = [one.effect for one in self.access] + [one.effect for one in self.requests]
        lost = "loses" in effects
        broken = any(one.problems or (one.before, one.after) == ("served", "not linked") for one in self.services)
        return msgspec.structs.replace(self, harms=bool(lost or broken or self.connections_cut or self.problems))
