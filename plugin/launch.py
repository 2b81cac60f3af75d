"""``consul-tgw run``: from settings to a running gateway, whatever it starts from.

A first start, the successor in a reload (which inherits), the one that is only tried before it (an understudy), or one
whose listening sockets the service manager gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from pathlib import Path

from plugin.addresses import bind_addresses
from plugin.consul.client import ConsulClient
from plugin.definition import Definition
from plugin.errors import GatewayError
from plugin.events.ring import EventRing
from plugin.process import activation, privileges
from plugin.process.runtime_dir import RuntimeDirectory, base_directory, gateway_directory
from plugin.process.signals import Signals
from plugin.reload import inheritance, program
from plugin.reload.messages import Inheritance, Rehearsed
from plugin.reload.understudy import Understudy
from plugin.running.supervisor import Supervisor
from plugin.saved_state.keeper import owner_of, saved_addresses
from plugin.settings import GatewaySettings
from plugin.workers.sockets import can_bind
from proxy import logs


def run_gateway(settings: GatewaySettings) -> int:
    """Run until a signal; returns the exit code. :raises GatewayError: when it cannot be started."""
    if settings.user:
        privileges.become(settings.user)
    _open_as_many_files_as_allowed()
    privileges.guard_memory(debuggable=settings.allow_debugging)
    return asyncio.run(_run(settings))


def _open_as_many_files_as_allowed() -> None:
    """The usual 1024 is for programs that call select(2); each connection takes two. Workers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(settings: GatewaySettings) -> int:
    ring = EventRing()
    with logs.heard_by(ring.heard):
        return await _run_heard(settings, ring)


async def _run_heard(settings: GatewaySettings, ring: EventRing) -> int:
    understudy = await Understudy.called(settings, os.environ) if program.REHEARSAL in os.environ else None
    inherited = inheritance.receive()
    given = activation.receive()
    signals = Signals()
    if inherited is not None:
        inheritance.signals_again()
    directory = _directory(settings, understudy, inherited)
    try:
        async with ConsulClient(settings.consul) as client:
            proxy_config = settings.registered_proxy_config(can_bind)
            definition = None
            if settings.register:
                bound = bind_addresses(settings.host_port, proxy_config, settings.tagged_addresses())
            else:
                definition = Definition(client, settings.id, settings.host_port, proxy_config)
                bound = await definition.bind(saved_addresses(settings.state_dir, owner_of(settings)))
            each = understudy.briefing.sockets_each if understudy is not None else 0
            each = inherited.sockets_each if inherited is not None else each
            supervisor = Supervisor(
                settings,
                directory,
                client,
                proxy_config,
                bound,
                definition,
                inherited,
                ring=ring,
                given=given,
                sockets_each=activation.for_each_worker(given, bound, settings.workers) or each,
            )
            if understudy is not None:
                return await understudy.play(supervisor)
            return await supervisor.run(signals)
    except GatewayError as error:
        if understudy is not None:
            await understudy.say(Rehearsed(problem=str(error)))
        raise
    finally:
        if understudy is None:
            directory.release()


def _directory(
    settings: GatewaySettings, understudy: Understudy | None, inherited: Inheritance | None
) -> RuntimeDirectory:
    """:raises StartError: when another gateway holds it."""
    path = gateway_directory(base_directory(settings.runtime_dir), settings.id, str(settings.host_port))
    if inherited is not None:
        return RuntimeDirectory.inherited(Path(inherited.directory), inherited.lock_fd, path)
    if understudy is None:
        return RuntimeDirectory.claim(path)
    held = Path(understudy.briefing.directory)
    if path != held:
        RuntimeDirectory.claim(path).release()
    return RuntimeDirectory.shared(held)
