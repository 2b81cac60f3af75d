"""``consul-tgw run``: from flags and variables to a running gateway."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from plugin.addresses import HostPort, socket_path
from plugin.admin.token import read_secret
from plugin.cli.dns_option import dns_server_option, dns_servers
from plugin.cli.seconds_option import seconds_option
from plugin.errors import ConfigError
from plugin.known_keys import check_own_config, doubtful_variables
from plugin.settings import ConsulSettings, GatewaySettings
from proxy import logs
from proxy.logs import emit

logger = logging.getLogger(__name__)


@click.command()
@click.option("--service", required=True, metavar="NAME", help="Service name: that of the terminating-gateway entry.")
@click.option(
    "--address",
    required=True,
    multiple=True,
    metavar="IP:PORT",
    help="Where sidecars reach the gateway: registered and bound. Further ones are bound as well.",
)
@click.option(
    "--wan-address",
    metavar="IP:PORT",
    help="Where other datacenters reach the gateway: registered, and bound if it is one of this host.",
)
@click.option(
    "--bind-address",
    multiple=True,
    metavar="NAME=IP:PORT",
    help="Bound instead of --address; may be repeated.",
)
@click.option("--service-id", default="", metavar="ID", help="Service ID, if it is not the name.")
@click.option(
    "--admin-address",
    default=None,
    metavar="IP:PORT|unix:///PATH",
    help="Metrics, health and state. Default: 127.0.0.1:19090, or the next free port.",
)
@click.option(
    "--admin-token-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Token for what changes something there, and off loopback for all but metrics and health. Default:"
    " CONSUL_TGW_ADMIN_TOKEN, else a new one in the runtime directory.",
)
@click.option(
    "--workers", type=click.IntRange(0, 1024), default=0, help="Worker processes. Default: one for each usable core."
)
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="Meta of the registration; may be repeated.")
@click.option(
    "--proxy-config", default="{}", metavar="JSON", help="Proxy.Config of the registration; keys as for Envoy gateways."
)
@click.option("--no-register", is_flag=True, help="Somebody else registers the gateway with the agent.")
@click.option(
    "--access-log",
    default=None,
    metavar="PATH|-|off",
    help="Where connections are logged. Default: as AccessLogs of proxy-defaults say, else - (standard output).",
)
@click.option(
    "--audit-log",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PATH",
    help="Append decisions here: who was denied or let in, what policy changed and ended, who changed something.",
)
@click.option(
    "--audit-allowed",
    is_flag=True,
    help="Everybody who is let in has a line there, not only the first of each caller, service and intention.",
)
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
@click.option("--log-format", type=click.Choice(logs.FORMATS), default="text", show_default=True)
@seconds_option(
    "--drain-delay",
    default=5.0,
    help="After SIGTERM: how long new connections are still served while sidecars turn away.",
)
@seconds_option(
    "--drain-timeout",
    default=30.0,
    help="After that: how long live connections may go on.",
)
@seconds_option(
    "--drain-window",
    default=5.0,
    help="After that: those that are left are ended one by one over this time.",
)
@seconds_option(
    "--handover-timeout",
    default=3600.0,
    help="How long live connections may stay in workers that were replaced.",
)
@dns_server_option
@click.option(
    "--max-connections",
    type=click.IntRange(0),
    metavar="N",
    help="At a time, shared equally by the workers; 0 is no limit. Default: 10000 for each worker.",
)
@click.option(
    "--max-service-connections",
    type=click.IntRange(0),
    metavar="N",
    help="Of one service, where MaxInboundConnections of its service-defaults says nothing; 0 is no limit. "
    "Default: three quarters of --max-connections.",
)
@click.option(
    "--max-pending-handshakes",
    type=click.IntRange(0),
    metavar="N",
    help="Beyond it, the oldest client that has not finished its handshake is ended; 0 is no limit. "
    "Default: 1000 for each worker.",
)
@seconds_option(
    "--handshake-timeout",
    default=10.0,
    help="For the whole TLS handshake with a client; 0 is no limit.",
)
@click.option(
    "--max-stalled-bytes",
    type=click.IntRange(0),
    metavar="BYTES",
    help="Kept for receivers that are slow; beyond it everybody is read in small pieces; 0 is no limit. "
    "Default: 64 MiB for each worker.",
)
@seconds_option(
    "--max-state-age",
    default=0.0,
    explained=True,
    help="Deny new connections when Consul has confirmed nothing for so long. Default: 0, never.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Keep the last good state here, private keys included, for a start while Consul is away.",
)
@click.option(
    "--user",
    default="",
    metavar="NAME",
    help="Become this user (as root), keeping only the right to bind ports below 1024 until they are bound.",
)
@click.option(
    "--worker-user",
    default="",
    metavar="NAME",
    help="Whom the workers become when the gateway runs as root. Default: nobody. They are never root.",
)
@click.option(
    "--allow-debugging",
    is_flag=True,
    help="Let debuggers and profilers of the same user in, and core files be written: they show keys and the token.",
)
@click.option(
    "--runtime-dir", type=click.Path(path_type=Path), help="Lock and hand-over sockets. Default: chosen by the system."
)
def run(**options: Any) -> int:
    """Run a gateway in the foreground, log on standard error.

    \b
    CONSUL_HTTP_TOKEN=... consul-tgw run --service my-gateway --address 10.0.0.5:8443
    consul-tgw run --service my-gateway --address '[::]:8443' --proxy-config '{"connect_timeout_ms": 2000}'

    SIGTERM and SIGINT leave Consul, let connections end, and stop; a second one stops at once. SIGHUP reads the files
    of all links and the token again, and opens the access log again. After a crash (or kill -9) the workers go on; the
    next start takes them over.
    """
    settings = gateway_settings(options, given_flags(click.get_current_context()))
    logs.configure(settings.log_level, settings.log_format)
    for warning in doubtful_variables(os.environ):
        emit(logger, logging.WARNING, "settings.doubtful", warning)
    from plugin.launch import run_gateway

    return run_gateway(settings)


def given_flags(context: click.Context) -> frozenset[str]:
    """The flags that the command line has."""
    return frozenset(
        max(parameter.opts, key=len)
        for parameter in context.command.params
        if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    )


def gateway_settings(options: dict[str, Any], given: frozenset[str] = frozenset()) -> GatewaySettings:
    """:raises ConfigError: when a flag or a ``CONSUL_`` variable cannot be used."""
    address, *more = (HostPort.parse(text, what="--address") for text in options["address"])
    wan = options["wan_address"]
    chosen = options["admin_address"] is not None
    admin_text = options["admin_address"] or "127.0.0.1:19090"
    admin_socket = socket_path(admin_text)
    admin = HostPort("127.0.0.1", 0)
    if admin_socket is None:
        admin = HostPort.parse(admin_text, what="--admin-address", zero=True)
    return GatewaySettings(
        consul=ConsulSettings.from_environment(),
        service=options["service"],
        service_id=options["service_id"],
        address=address.host,
        port=address.port,
        more_addresses=tuple(more),
        wan_address=HostPort.parse(wan, what="--wan-address") if wan else None,
        bind_addresses=parse_bind_addresses(options["bind_address"]),
        admin_address=admin.host,
        admin_port=admin.port,
        admin_port_chosen=chosen,
        admin_socket=admin_socket,
        admin_token=read_secret(options["admin_token_file"]),
        workers=options["workers"],
        meta=parse_meta(options["meta"]),
        proxy_config=parse_proxy_config(options["proxy_config"]),
        register=not options["no_register"],
        drain_delay_s=options["drain_delay"],
        drain_timeout_s=options["drain_timeout"],
        drain_window_s=options["drain_window"],
        handover_timeout_s=options["handover_timeout"],
        max_connections=options["max_connections"],
        max_service_connections=options["max_service_connections"],
        max_pending_handshakes=options["max_pending_handshakes"],
        handshake_timeout_s=options["handshake_timeout"],
        max_stalled_bytes=options["max_stalled_bytes"],
        access_log=options["access_log"],
        audit_log=options["audit_log"],
        audit_allowed=options["audit_allowed"],
        log_level=options["log_level"],
        log_format=options["log_format"],
        dns_servers=dns_servers(options["dns_server"]),
        max_state_age_s=options["max_state_age"],
        state_dir=options["state_dir"],
        user=options["user"],
        worker_user=options["worker_user"],
        allow_debugging=options["allow_debugging"],
        runtime_dir=options["runtime_dir"],
        given=given,
    )


def parse_meta(pairs: Iterable[str]) -> dict[str, str]:
    meta = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"--meta {pair!r} is not KEY=VALUE")
        meta[key] = value
    return meta


def parse_bind_addresses(pairs: Iterable[str]) -> dict[str, HostPort]:
    named: dict[str, HostPort] = {}
    for pair in pairs:
        name, separator, address = pair.partition("=")
        if not separator or not name:
            raise ConfigError(f"--bind-address {pair!r} is not NAME=IP:PORT; write for example lan=10.0.0.5:8443")
        if name in named:
            raise ConfigError(f"--bind-address {name} is given twice; give each address a name of its own")
        named[name] = HostPort.parse(address, what=f"--bind-address {name}")
    return named


def parse_proxy_config(text: str) -> dict[str, object]:
    try:
        decoded = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--proxy-config is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ConfigError("--proxy-config must be a JSON object, for example '{\"connect_timeout_ms\": 2000}'")
    check_own_config(decoded)
    return decoded
