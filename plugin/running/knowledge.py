"""What the gateway knows, from Consul, files and names, and how that becomes what workers have in force.

The path of a fact from one end to the other: observer -> store -> gateway (assembles) -> witness (audits) -> workers;
beside it how old the facts are, and the state that is saved of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from plugin.audit.policy import PolicyWitness
from plugin.consul.client import ConsulClient
from plugin.definition import Definition
from plugin.gateway import PATIENCE_AFTER_RESTORE_S, Gateway
from plugin.observe.freshness import Freshness, wait_s
from plugin.observe.needs import Needs
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.process.parts import Parts
from plugin.running.data_plane import DataPlane
from plugin.saved_state.keeper import StateKeeper, owner_of
from plugin.settings import GatewaySettings


class Knowledge:
    def __init__(
        self,
        settings: GatewaySettings,
        client: ConsulClient,
        plane: DataPlane,
        proxy_config: Mapping[str, object],
        definition: Definition | None,
    ) -> None:
        """``definition`` is where somebody else registers the gateway, and then ``proxy_config`` is only ours."""
        self._published = published = plane.published
        self._presence = client.presence
        self._definition = definition
        self.store = FactStore()
        if definition is not None:
            definition.learned = self.store.set_proxy_config
            definition.bind_now = plane.workers.bind
        self.store.set_proxy_config(proxy_config if definition is None else definition.proxy_config)
        self.witness = PolicyWitness(
            plane.audit.journal, published, plane.workers.publish, self.store.index_of_intentions
        )
        self.needs = Needs(self.store, settings.dns_servers)
        plane.workers.on_keys_wanted = self.needs.renew_keys
        self.gateway = Gateway(
            self.store,
            published,
            self.witness.publish,
            needs=self.needs.changed,
            access_logs=plane.access_log.take,
            max_state_age_s=settings.max_state_age_s,
        )
        client.wait_s = wait_s(settings.max_state_age_s)
        self.observer = Observer(client, self.store, settings.service)
        self.freshness = Freshness(
            self.observer.newest_states, max_age_s=settings.max_state_age_s, stale=self.gateway.set_stale
        )
        self.saved_state = StateKeeper(
            settings.state_dir,
            owner_of(settings),
            self.store,
            self.freshness,
            worth_saving=lambda: published.complete,
            generation=lambda: published.generation,
            bound=plane.workers.addresses if definition is not None else lambda: (),
        )

    def restore(self, *, in_force: bool) -> None:
        """Begin with the saved state, if there is one that can be used and no worker has a newer one.

        :param in_force: the workers have their state from this very file.
        """
        rest = self.saved_state.restore(in_force=in_force)
        self.needs.know(rest.addresses, rest.keys)
        state = self.saved_state.restored
        if state is not None and state.roots is not None and state.roots.value is not None:
            self._published.generation = max(self._published.generation, state.generation)
            self._presence.expect_restored(state.roots.value.trust_domain, state.datacenter)
            self.gateway.patience_s = PATIENCE_AFTER_RESTORE_S
            if self._definition is not None and not self._definition.known:
                self.store.set_proxy_config(state.proxy_config)

    def follow(self, parts: Parts) -> None:
        """Learn, and tell the workers, from now on."""
        parts.run("observer", self.observer.run())
        parts.run("gateway", self.gateway.run())
        parts.run("files and names", self.needs.run())

    def keep(self, parts: Parts) -> None:
        """Watch how old all of it is, and save it."""
        parts.run("age of the state", self.freshness.run())
        parts.run("saved state", self.saved_state.run())
