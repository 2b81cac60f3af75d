"""Where operators are answered: the admin API and the dashboard, on an address, a Unix socket or an inherited one."""

from __future__ import annotations

import os
import signal

from plugin.addresses import HostPort
from plugin.admin.app import AdminServer, build_app
from plugin.admin.explain_pages import add_explaining
from plugin.admin.guard import Access
from plugin.admin.simulate_pages import add_simulating
from plugin.admin.token import AdminToken, new_secret
from plugin.answers.control_view import ControlView
from plugin.answers.explaining import Explainer
from plugin.answers.operations import Operations
from plugin.answers.simulating import Simulator
from plugin.audit.journal import Journal
from plugin.consul.client import ConsulClient
from plugin.events.ring import EventRing
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.reload.messages import Inheritance
from plugin.settings import GatewaySettings


def admin_server(
    settings: GatewaySettings,
    directory: RuntimeDirectory,
    client: ConsulClient,
    view: ControlView,
    ring: EventRing,
    journal: Journal,
) -> AdminServer:
    """Its pages, which show ``view``; it does not listen yet."""
    app = build_app(
        view,
        Access(token=AdminToken(_secret(settings, directory)), remote=settings.admin_is_remote),
        refresh=lambda: os.kill(os.getpid(), signal.SIGHUP),
        journal=journal,
        operations=Operations(
            settings=settings,
            store=view.store,
            observer=view.observer,
            workers=view.workers,
            ring=ring,
        ),
    )
    explainer = Explainer(
        settings=settings,
        published=view.published,
        gateway=view.gateway,
        store=view.store,
        workers=view.workers,
        freshness=view.freshness,
    )
    add_explaining(app, explainer)
    add_simulating(app, Simulator(view=view, explainer=explainer, client=client))
    return AdminServer(app)


def _secret(settings: GatewaySettings, directory: RuntimeDirectory) -> str:
    secret = settings.admin_token
    if not secret:
        secret = new_secret()
        # A generation that is only tried has no admin pages: the file is that of the running one.
        if directory.held:
            directory.write_admin_token(secret)
    return secret


async def open_reception(admin: AdminServer, settings: GatewaySettings, inherited: Inheritance | None) -> str:
    """Listen; returns where. :raises StartError: when it cannot."""
    descriptor = inherited.admin_fd if inherited is not None else -1
    if settings.admin_socket is not None:
        if descriptor >= 0:
            os.close(descriptor)
        await admin.start_unix(settings.admin_socket)
        return f"unix://{settings.admin_socket}"
    wanted = HostPort(settings.admin_address, settings.admin_port)
    return str(await admin.start(wanted, chosen=settings.admin_port_chosen, inherited=descriptor))
