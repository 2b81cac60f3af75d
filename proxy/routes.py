"""What this worker serves at the moment: server names, certificates, policy and endpoints.

An :class:`~proxy.messages.Update` is taken over service by service. Policy always takes effect; material that cannot be
used (a certificate, a key) is reported and leaves the former material in force, and touches no other service.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.errors import MaterialError
from proxy.messages import Problem, Update
from proxy.model import Mesh, ServerName, Service, ServiceName
from proxy.policy.identity import IdentityError, MeshGateway, cached_caller_of
from proxy.policy.intentions import Policy
from proxy.tls import alpn
from proxy.tls.client_trust import ClientTrust
from proxy.tls.context import FrontContext, ServiceContext, UpstreamContext
from proxy.tls.session import ServerSession
from proxy.upstream.balance import EndpointSet
from proxy.upstream.dial import Target
from proxy.upstream.rivals import Rivals


@dataclass(slots=True)
class ServiceState:
    """One linked service as it is in force."""

    service: Service
    policy: Policy
    contexts: dict[str, ServiceContext] = field(default_factory=dict)
    """By peer; ``""`` is the local mesh."""
    stale: bool = True
    """The contexts are older than the leaf or the roots; they are made anew when the next client needs one."""
    upstream_tls: UpstreamContext | None = None
    upstream_unusable: str = ""
    targets: dict[str, Target] = field(default_factory=dict)
    """By server name."""


@dataclass(frozen=True, slots=True)
class Route:
    """One server name and the service behind it."""

    state: ServiceState
    server_name: ServerName

    @property
    def target(self) -> Target:
        return self.state.targets[self.server_name.sni]


class RouteTable:
    """Server name -> route. Names are compared whole and in lower case, never parsed."""

    def __init__(self) -> None:
        self.generation = 0
        self.mesh: Mesh | None = None
        self.front: FrontContext | None = None
        self._spoken: Mesh | None = None
        """Whose TLS settings the front context has: the newest that could be used."""
        self._client_trusts: dict[str, ClientTrust] = {}
        """By peer; ``""`` is the local mesh."""
        self._services: dict[ServiceName, ServiceState] = {}
        self._routes: dict[str, Route] = {}

    def accept(self) -> ServerSession | None:
        """A session for a new client; ``None`` while the mesh is not known."""
        return self.front.accept() if self.front else None

    def lookup(self, server_name: str) -> Route | None:
        return self._routes.get(server_name)

    def vouches(self, session: ServerSession, route: Route) -> bool:
        """Whether those who vouched for the client of ``session`` are trusted still: a handshake may take its time."""
        return self._client_trusts.get(route.server_name.peer) is session.vouched_by is not None

    def state(self, name: ServiceName) -> ServiceState | None:
        return self._services.get(name)

    def apply(self, update: Update) -> tuple[set[ServiceName], set[ServiceName], list[Problem]]:
        """Take over ``update``.

        :returns: services whose policy may have changed, services that are gone, and what could not be used.
        """
        problems: list[Problem] = []
        changed: set[ServiceName] = set()
        if update.mesh is not None and update.mesh != self.mesh:
            self._take_mesh(update.mesh, problems)
            changed.update(self._services)
        removed = set(update.removals)
        if update.full:
            removed |= set(self._services) - {service.name for service in update.upserts} - set(update.keep)
        for name in removed:
            self._remove(name)
        for service in update.upserts:
            self._upsert(service, problems)
            changed.add(service.name)
        self.generation = update.generation
        return changed - removed, removed, problems

    def _take_mesh(self, mesh: Mesh, problems: list[Problem]) -> None:
        former, self.mesh = self.mesh, mesh
        spoken = self._spoken
        try:
            self.front = FrontContext(mesh, self._select, self._object_to)
            self._spoken = mesh
        except MaterialError as error:
            problems.append(Problem(None, str(error)))
        tls_changed = _tls_settings(spoken) != _tls_settings(self._spoken)
        trust_changed = former is None or (former.roots_pem, former.peer_bundles) != (
            mesh.roots_pem,
            mesh.peer_bundles,
        )
        if trust_changed:
            self._take_roots(mesh, problems)
        for state in self._services.values():
            state.policy = Policy.compile(state.service, mesh)
            state.stale = state.stale or trust_changed or tls_changed

    def _take_roots(self, mesh: Mesh, problems: list[Problem]) -> None:
        roots = {bundle.peer: bundle.roots_pem for bundle in mesh.peer_bundles} | {"": mesh.roots_pem}
        trusts: dict[str, ClientTrust] = {}
        for peer, roots_pem in roots.items():
            try:
                trusts[peer] = ClientTrust(roots_pem)
            except MaterialError as error:
                problems.append(Problem(None, f"the roots of {f'peer {peer}' if peer else 'the mesh'}: {error}"))
                if peer in self._client_trusts:
                    trusts[peer] = self._client_trusts[peer]
        self._client_trusts = trusts

    def _upsert(self, service: Service, problems: list[Problem]) -> None:
        if self.mesh is None:
            problems.append(Problem(service.name, "the mesh's roots are not known yet"))
            return
        state = self._services.get(service.name)
        policy = Policy.compile(service, self.mesh)
        if state is None:
            state = self._services[service.name] = ServiceState(service, policy)
        else:
            self._forget_names(state)
            state.stale = state.stale or (
                (state.service.leaf, alpn.of_service(state.service)) != (service.leaf, alpn.of_service(service))
            )
        former, state.service, state.policy = state.service, service, policy
        _take_upstream_tls(state, former, problems)
        _take_targets(state)
        self._route(state)
        # It may be exported to a peer that has been known for long: nothing but its names is new then.
        if state.stale or not _peers_of(service) & set(self._client_trusts) <= set(state.contexts):
            self._refresh(state, problems)

    def _remove(self, name: ServiceName) -> None:
        state = self._services.pop(name, None)
        if state is not None:
            self._forget_names(state)

    def _forget_names(self, state: ServiceState) -> None:
        for server_name in state.service.server_names:
            route = self._routes.get(server_name.sni)
            if route is not None and route.state is state:
                del self._routes[server_name.sni]

    def _route(self, state: ServiceState) -> None:
        for server_name in state.service.server_names:
            self._routes[server_name.sni] = Route(state, server_name)

    def _select(self, server_name: str) -> ServiceContext | None:
        """What a client that asks for ``server_name`` is shown; called in the middle of its handshake."""
        route = self._routes.get(server_name)
        if route is None:
            return None
        if route.state.stale:
            self._refresh(route.state, [])
        return route.state.contexts.get(route.server_name.peer)

    def _object_to(self, server_name: str, uris: tuple[str, ...]) -> str:
        """Why a caller with these names may not call ``server_name``, whatever the intentions say; empty if it may."""
        route = self._routes.get(server_name)
        if route is None:
            return "the service was unlinked during the handshake"
        try:
            caller = cached_caller_of(uris)
        except IdentityError as error:
            return str(error)
        policy, peer = route.state.policy, route.server_name.peer
        return policy.objection_to(caller, peer) if isinstance(caller, MeshGateway) else policy.stranger(caller, peer)

    def _refresh(self, state: ServiceState, problems: list[Problem]) -> None:
        state.stale = False
        contexts: dict[str, ServiceContext] = {}
        for peer in _peers_of(state.service) & set(self._client_trusts):
            try:
                contexts[peer] = ServiceContext(
                    state.service.leaf, self._client_trusts[peer], self._spoken, alpn=alpn.of_service(state.service)
                )
            except MaterialError as error:
                problems.append(Problem(state.service.name, str(error)))
                if peer in state.contexts:
                    # What was shown is shown on; whom it trusts is not the leaf's affair.
                    contexts[peer] = state.contexts[peer]
                    contexts[peer].client_trust = self._client_trusts[peer]
        state.contexts = contexts


def _peers_of(service: Service) -> set[str]:
    """Whose callers have a name of their own for it; ``""`` are those of the local mesh."""
    return {server_name.peer for server_name in service.server_names}


def _tls_settings(mesh: Mesh | None) -> tuple[object, ...]:
    return () if mesh is None else (mesh.tls_min_version, mesh.tls_max_version, mesh.cipher_suites)


def _take_upstream_tls(state: ServiceState, former: Service, problems: list[Problem]) -> None:
    wanted, offered = state.service.upstream_tls, alpn.to_external_service(state.service)
    if wanted is None:
        state.upstream_tls, state.upstream_unusable = None, ""
        return
    before = former.upstream_tls, alpn.to_external_service(former)
    if (wanted, offered) == before and state.upstream_tls is not None:
        return
    try:
        state.upstream_tls, state.upstream_unusable = UpstreamContext(wanted, alpn=offered), ""
    except MaterialError as error:
        problems.append(Problem(state.service.name, str(error)))
        if state.upstream_tls is None:
            # Never fall back to plain text: TLS was asked for.
            state.upstream_unusable = f"TLS to the external service cannot be set up: {error}"


def _take_targets(state: ServiceState) -> None:
    service = state.service
    former, state.targets = state.targets, {}
    for server_name in service.server_names:
        old = former.get(server_name.sni)
        endpoints, rivals = (old.endpoints, old.rivals) if old else (None, None)
        if endpoints is None or (endpoints.endpoints, endpoints.balance) != (server_name.endpoints, service.balance):
            fresh = EndpointSet(server_name.endpoints, service.balance)
            if endpoints is not None:
                fresh.take_over(endpoints)
            endpoints, rivals = fresh, None
        state.targets[server_name.sni] = Target(
            endpoints=endpoints,
            rivals=rivals or Rivals(server_name.endpoints),
            connect_timeout_s=service.connect_timeout_s,
            tls=state.upstream_tls,
            unusable=state.upstream_unusable,
            keepalive=service.keepalive,
        )
