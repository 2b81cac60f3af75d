"""The settings in effect, and where each came from. Nothing secret is in what is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields

import msgspec

from plugin.addresses import HostPort
from plugin.admin.token import VARIABLE as ADMIN_TOKEN
from plugin.consul.api import AccessLogs
from plugin.known_keys import KEYS, canonical, doubtful_keys, doubtful_variables
from plugin.settings import ConsulSettings, GatewaySettings
from plugin.workers.settings import usable_cores

FLAG, VARIABLE, ENTRY, DEFAULT = "flag", "environment variable", "Consul", "default"
_SET = "(set, not shown)"
_CONSUL_VARIABLES = {
    "address": "CONSUL_HTTP_ADDR",
    "token": "CONSUL_HTTP_TOKEN",
    "token_file": "CONSUL_HTTP_TOKEN_FILE",
    "basic_auth": "CONSUL_HTTP_AUTH",
    "ca_file": "CONSUL_CACERT",
    "ca_path": "CONSUL_CAPATH",
    "client_cert": "CONSUL_CLIENT_CERT",
    "client_key": "CONSUL_CLIENT_KEY",
    "tls_server_name": "CONSUL_TLS_SERVER_NAME",
    "verify": "CONSUL_HTTP_SSL_VERIFY",
    "namespace": "CONSUL_NAMESPACE",
    "partition": "CONSUL_PARTITION",
}
_SECRET = frozenset({"token", "basic_auth"})


class Setting(msgspec.Struct, frozen=True):
    name: str
    """The flag, the variable, or the key of ``Proxy.Config``."""
    value: str
    """As it would be written; a secret only says that it is set."""
    origin: str
    """``flag``, ``environment variable``, ``Consul`` (what is written there) or ``default``."""
    where: str = ""
    """Which flag, variable or entry."""


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``/api/config``."""

    settings: tuple[Setting, ...]
    consul: tuple[Setting, ...]
    """How Consul is reached."""
    proxy_config: tuple[Setting, ...]
    """Keys of ``Proxy.Config`` that have an effect."""
    warnings: tuple[str, ...] = ()
    """Names that nobody knows, with what was probably meant."""


def effective(
    settings: GatewaySettings,
    environment: Mapping[str, str] = os.environ,
    *,
    registered: Mapping[str, object] | None = None,
    shared: Mapping[str, object] | None = None,
    access_logs: AccessLogs | None = None,
) -> Effective:
    """``registered`` is ``Proxy.Config`` in effect, ``shared`` the ``Config`` and ``access_logs`` the ``AccessLogs`` of
    proxy-defaults, as far as they are known."""
    own = settings.proxy_config if registered is None else registered
    others = {key: value for key, value in own.items() if key not in settings.proxy_config}
    return Effective(
        settings=tuple(_flags(settings, environment, access_logs)),
        consul=tuple(_consul(settings.consul, environment)),
        proxy_config=tuple(_proxy_config(settings, own, shared or {})),
        warnings=(*doubtful_variables(environment), *doubtful_keys(others, shared or {})),
    )


def _flags(
    settings: GatewaySettings, environment: Mapping[str, str], access_logs: AccessLogs | None
) -> Iterator[Setting]:
    for flag, value in _values(settings).items():
        given = flag in settings.given
        yield Setting(flag, value, FLAG if given else DEFAULT, flag if given else "")
    yield _access_log(settings, access_logs)
    yield _admin_token(settings, environment)


def _access_log(settings: GatewaySettings, access_logs: AccessLogs | None) -> Setting:
    name = "--access-log"
    if settings.access_log is not None:
        return Setting(name, settings.access_log, FLAG, name)
    if access_logs is not None:
        return Setting(name, "as AccessLogs say", ENTRY, "proxy-defaults")
    return Setting(name, "- (standard output)", DEFAULT)


def _admin_token(settings: GatewaySettings, environment: Mapping[str, str]) -> Setting:
    name = "--admin-token-file"
    if name in settings.given:
        return Setting(name, _SET, FLAG, name)
    if environment.get(ADMIN_TOKEN, "").strip():
        return Setting(name, _SET, VARIABLE, ADMIN_TOKEN)
    return Setting(name, "a new token for each start, in the runtime directory", DEFAULT)


def _values(settings: GatewaySettings) -> dict[str, str]:
    workers = settings.workers or usable_cores()
    limits = settings.limits(workers)
    admin = f"unix://{settings.admin_socket}" if settings.admin_socket else ""
    free = "" if settings.admin_port_chosen else ", or the next free port"
    bound = {name: str(at) for name, at in settings.bind_addresses.items()}
    return {
        "--service": settings.service,
        "--service-id": settings.id,
        "--address": " ".join(map(str, (settings.host_port, *settings.more_addresses))),
        "--wan-address": _text(settings.wan_address),
        "--bind-address": _pairs(bound),
        "--no-register": _truth(not settings.register),
        "--meta": _pairs(settings.meta),
        "--admin-address": admin or f"{HostPort(settings.admin_address, settings.admin_port)}{free}",
        "--workers": str(workers),
        "--audit-log": _text(settings.audit_log),
        "--audit-allowed": _truth(settings.audit_allowed),
        "--log-level": settings.log_level,
        "--log-format": settings.log_format,
        "--drain-delay": f"{settings.drain_delay_s:g}",
        "--drain-timeout": f"{settings.drain_timeout_s:g}",
        "--drain-window": f"{settings.drain_window_s:g}",
        "--handover-timeout": f"{settings.handover_timeout_s:g}",
        "--dns-server": " ".join(map(str, settings.dns_servers)) or "those of /etc/resolv.conf",
        "--max-connections": _limit(limits.connections),
        "--max-service-connections": _limit(limits.service_connections),
        "--max-pending-handshakes": _limit(limits.pending_handshakes),
        "--handshake-timeout": f"{settings.handshake_timeout_s:g}",
        "--max-stalled-bytes": _limit(limits.stalled_bytes),
        "--max-state-age": f"{settings.max_state_age_s:g}" if settings.max_state_age_s else "never",
        "--state-dir": _text(settings.state_dir),
        "--user": _text(settings.user),
        "--worker-user": settings.worker_user or "nobody, when started by root",
        "--allow-debugging": _truth(settings.allow_debugging),
        "--runtime-dir": _text(settings.runtime_dir) if settings.runtime_dir else "chosen by the system",
    }


def _consul(consul: ConsulSettings, environment: Mapping[str, str]) -> Iterator[Setting]:
    for one in fields(consul):
        variable, value = _CONSUL_VARIABLES[one.name], getattr(consul, one.name)
        given = bool(environment.get(variable, "").strip())
        text = (_SET if value else "none") if one.name in _SECRET else _text(value)
        yield Setting(variable, text, VARIABLE if given else DEFAULT, variable if given else "")


def _proxy_config(
    settings: GatewaySettings, own: Mapping[str, object], shared: Mapping[str, object]
) -> Iterator[Setting]:
    by_name = {canonical(key): key for key in (*shared, *own)}
    for name, default in KEYS.items():
        key = by_name.get(name, name)
        if key in settings.proxy_config:
            yield Setting(name, json.dumps(settings.proxy_config[key]), FLAG, "--proxy-config")
        elif key in own:
            flags = settings.register
            where = "the address flags" if flags else "Proxy.Config of the registration"
            yield Setting(name, json.dumps(own[key]), FLAG if flags else ENTRY, where)
        elif key in shared and not name.startswith("envoy_gateway_bind") and name != "envoy_gateway_no_default_bind":
            yield Setting(name, json.dumps(shared[key]), ENTRY, "Config of proxy-defaults")
        else:
            yield Setting(name, default, DEFAULT)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return _truth(value)
    return str(value) if value else "none"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _limit(number: int) -> str:
    return str(number) if number else "no limit"


def _pairs(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items()) or "none"
