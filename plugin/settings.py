"""Settings of this process: where Consul is, what to bind, how many workers. Nothing about a service is here."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from plugin.addresses import HostPort, binds_itself
from plugin.errors import ConfigError
from proxy.messages import Limits

LEAST_MAX_STATE_AGE_S = 10.0
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_MAX_META_VALUE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulSettings:
    """Where the Consul agent is and who we are to it. The variables are those of Consul's own tools."""

    address: str = "http://127.0.0.1:8500"
    """``http://``, ``https://`` or ``unix://`` address (``CONSUL_HTTP_ADDR``, ``CONSUL_HTTP_SSL``)."""
    token: str = field(default="", repr=False)
    """``CONSUL_HTTP_TOKEN``."""
    token_file: Path | None = None
    """``CONSUL_HTTP_TOKEN_FILE``; wins over ``token`` and is read again when it changes."""
    basic_auth: str = field(default="", repr=False)
    """``user:password`` for a reverse proxy before the agent (``CONSUL_HTTP_AUTH``)."""
    ca_file: Path | None = None
    """``CONSUL_CACERT``."""
    ca_path: Path | None = None
    """``CONSUL_CAPATH``."""
    client_cert: Path | None = None
    """``CONSUL_CLIENT_CERT``."""
    client_key: Path | None = None
    """``CONSUL_CLIENT_KEY``."""
    tls_server_name: str = ""
    """``CONSUL_TLS_SERVER_NAME``."""
    verify: bool = True
    """``CONSUL_HTTP_SSL_VERIFY``."""
    namespace: str = ""
    """``CONSUL_NAMESPACE`` (Enterprise)."""
    partition: str = ""
    """``CONSUL_PARTITION`` (Enterprise)."""

    def __post_init__(self) -> None:
        """:raises ConfigError: when the fields contradict each other or cannot be used."""
        if bool(self.client_cert) != bool(self.client_key):
            given, missing = ("CERT", "KEY") if self.client_cert else ("KEY", "CERT")
            raise ConfigError(
                f"CONSUL_CLIENT_{given} is set and CONSUL_CLIENT_{missing} is not; "
                "set both, for a client certificate, or neither"
            )
        if "\n" in self.token or "\r" in self.token:
            raise ConfigError("CONSUL_HTTP_TOKEN holds a line break; set it to the token alone")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> ConsulSettings:
        """Read the ``CONSUL_`` variables as Consul's own command line does.

        Source: https://developer.hashicorp.com/consul/commands#environment-variables
        :raises ConfigError: names the variable that cannot be used.
        """
        read = _Variables(environment)
        return cls(
            address=_consul_address(read.text("CONSUL_HTTP_ADDR"), tls=read.truth("CONSUL_HTTP_SSL", default=False)),
            token=read.text("CONSUL_HTTP_TOKEN"),
            token_file=read.path("CONSUL_HTTP_TOKEN_FILE"),
            basic_auth=read.text("CONSUL_HTTP_AUTH"),
            ca_file=read.path("CONSUL_CACERT"),
            ca_path=read.path("CONSUL_CAPATH"),
            client_cert=read.path("CONSUL_CLIENT_CERT"),
            client_key=read.path("CONSUL_CLIENT_KEY"),
            tls_server_name=read.text("CONSUL_TLS_SERVER_NAME"),
            verify=read.truth("CONSUL_HTTP_SSL_VERIFY", default=True),
            namespace=read.text("CONSUL_NAMESPACE"),
            partition=read.text("CONSUL_PARTITION"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """One gateway process group."""

    consul: ConsulSettings
    service: str = "terminating-gateway"
    """The gateway's service name: the name of its terminating-gateway entry."""
    service_id: str = ""
    """Empty: the same as ``service``."""
    address: str = "127.0.0.1"
    """What is registered, and what is bound unless ``Proxy.Config`` says otherwise."""
    port: int = 8443
    more_addresses: tuple[HostPort, ...] = ()
    """Bound as well."""
    wan_address: HostPort | None = None
    """Registered as ``TaggedAddresses.wan``: where other datacenters reach the gateway."""
    bind_addresses: Mapping[str, HostPort] = field(default_factory=dict)
    """By listener name: bound instead of ``address``."""
    admin_address: str = "127.0.0.1"
    admin_port: int = 19090
    admin_port_chosen: bool = False
    """The operator named the admin port: if it is taken, that is an error."""
    admin_socket: Path | None = None
    """A Unix socket, instead of address and port."""
    admin_token: str = field(default="", repr=False)
    """What changes something through the admin API; empty: a new one, kept in the runtime directory."""
    workers: int = 0
    """0: one for each usable core."""
    meta: Mapping[str, str] = field(default_factory=dict)
    proxy_config: Mapping[str, object] = field(default_factory=dict)
    register: bool = True
    drain_delay_s: float = 5.0
    """Between telling Consul and closing the listening sockets: sidecars turn away meanwhile."""
    drain_timeout_s: float = 30.0
    """How long live connections may go on after that."""
    drain_window_s: float = 5.0
    """Over how long the connections that are left then are ended."""
    handover_timeout_s: float = 3600.0
    """How long live connections may stay in workers that a new generation has replaced."""
    max_connections: int | None = None
    """This limit and the next three are of the whole gateway; ``None``: as :meth:`limits` says, 0: none."""
    max_service_connections: int | None = None
    max_pending_handshakes: int | None = None
    max_stalled_bytes: int | None = None
    handshake_timeout_s: float = 10.0
    """0: none."""
    access_log: str | None = None
    """``-`` is standard output, ``off`` is nowhere, anything else a file to append to; ``None``: as proxy-defaults
    say, else standard output."""
    audit_log: Path | None = None
    """A file to append decisions to; ``None``: nowhere."""
    audit_allowed: bool = False
    """Everybody who is let in has a line there, not only the first of each caller."""
    log_level: str = "info"
    log_format: str = "text"
    """``text`` or ``json``."""
    dns_servers: tuple[HostPort, ...] = ()
    """What resolves the hostnames of external services; empty: the name servers of ``/etc/resolv.conf``."""
    user: str = ""
    """Whom to become before anything else is done; empty: nobody."""
    max_state_age_s: float = 0.0
    """Seconds after the last confirmation by Consul from which nobody new is let in; 0: never."""
    state_dir: Path | None = None
    """Where the last good state is kept for a start without Consul; ``None``: nowhere."""
    worker_user: str = ""
    """Whom the workers of root become; empty: the user ``nobody``."""
    allow_debugging: bool = False
    """Leave memory and core files to processes of the same user."""
    runtime_dir: Path | None = None
    """Where hand-over sockets live; ``None``: chosen by the environment."""

    given: frozenset[str] = field(default=frozenset(), compare=False)
    """The flags that were given (``--workers``); for whoever asks where a setting comes from."""

    def __post_init__(self) -> None:
        """:raises ConfigError: names the setting that cannot be used, and what would do."""
        _check_name("--service", self.service)
        if self.service_id:
            _check_name("--service-id", self.service_id)
        _check_endpoint("--address", self.address, self.port, lowest=1)
        _check_endpoint("--admin-address", self.admin_address, self.admin_port, lowest=0)
        if self.admin_is_remote and not self.admin_token:
            raise ConfigError(
                f"--admin-address {self.admin_address} can be reached from other hosts and shows who calls what; give"
                " it a token with --admin-token-file or CONSUL_TGW_ADMIN_TOKEN, or use 127.0.0.1 or unix:///PATH"
            )
        if self.workers < 0:
            raise ConfigError(f"--workers {self.workers} is negative; 0 starts one worker for each usable core")
        for flag, seconds in (
            ("--drain-delay", self.drain_delay_s),
            ("--drain-timeout", self.drain_timeout_s),
            ("--drain-window", self.drain_window_s),
            ("--handover-timeout", self.handover_timeout_s),
        ):
            if not 0 <= seconds < math.inf:
                raise ConfigError(f"{flag} {seconds} is not a number of seconds that is 0 or more")
        if self.max_state_age_s and not LEAST_MAX_STATE_AGE_S <= self.max_state_age_s < math.inf:
            raise ConfigError(
                f"--max-state-age {self.max_state_age_s} is not a number of seconds from {LEAST_MAX_STATE_AGE_S:g} on;"
                " 0 sets no maximum"
            )
        if self.access_log == "":
            raise ConfigError("--access-log is empty; use - for standard output, off for none, or a path")
        if self.audit_allowed and self.audit_log is None:
            raise ConfigError("--audit-allowed says what the audit log holds; name its file with --audit-log")
        for key, value in self.meta.items():
            _check_meta(key, value)
        self._check_addresses()

    def _check_addresses(self) -> None:
        if self.wan_address is not None and not self.register:
            raise ConfigError("--wan-address is registered, and --no-register registers nothing; leave one of them out")
        if self.bind_addresses and self.more_addresses:
            raise ConfigError("--bind-address replaces what is bound; give the further --address as --bind-address too")
        if binds_itself(self.proxy_config) and (self.bind_addresses or self.more_addresses):
            raise ConfigError(
                "--proxy-config says what to bind (envoy_gateway_*bind*), and so does --bind-address or a further"
                " --address; keep one of them"
            )

    def limits(self, workers: int) -> Limits:
        """What so many workers allow together: where nothing was chosen, in proportion to them."""
        one = Limits()
        connections = _chosen(self.max_connections, workers * one.connections)
        return Limits(
            workers=workers,
            connections=connections,
            service_connections=_chosen(self.max_service_connections, -(-connections * 3 // 4)),
            pending_handshakes=_chosen(self.max_pending_handshakes, workers * one.pending_handshakes),
            handshake_timeout_s=self.handshake_timeout_s,
            stalled_bytes=_chosen(self.max_stalled_bytes, workers * one.stalled_bytes),
            drain_timeout_s=self.drain_timeout_s,
            drain_window_s=self.drain_window_s,
        )

    @property
    def admin_is_remote(self) -> bool:
        """Other hosts may reach the admin address."""
        return self.admin_socket is None and not ipaddress.ip_address(self.admin_address).is_loopback

    @property
    def id(self) -> str:
        """The service ID in the registration."""
        return self.service_id or self.service

    @property
    def host_port(self) -> HostPort:
        return HostPort(self.address, self.port)

    def tagged_addresses(self) -> dict[str, HostPort]:
        """``TaggedAddresses`` of the registration: as ``consul connect envoy -address -wan-address`` sets them."""
        tagged = {} if ipaddress.ip_address(self.address).is_unspecified else {"lan": self.host_port}
        return tagged if self.wan_address is None else {**tagged, "wan": self.wan_address}

    def registered_proxy_config(self, can_bind: Callable[[str], bool]) -> dict[str, object]:
        """``Proxy.Config`` of the registration: ``--proxy-config`` and what the address flags add to it.

        ``can_bind`` says whether an IP address is one of this host. The WAN address is bound if it is, as
        ``consul connect envoy`` does; otherwise somebody else brings its connections here.
        """
        derived: dict[str, object] = {}
        if self.bind_addresses:
            named = {name: _service_address(at) for name, at in self.bind_addresses.items()}
            derived = {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_addresses": named}
        elif not binds_itself(self.proxy_config):
            if self.wan_address is not None and all(can_bind(host) for host in (self.address, self.wan_address.host)):
                derived = {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_tagged_addresses": True}
            if self.more_addresses:
                derived["envoy_gateway_bind_addresses"] = {
                    f"address-{number}": _service_address(at) for number, at in enumerate(self.more_addresses, 2)
                }
        return {**derived, **self.proxy_config}


def _service_address(at: HostPort) -> dict[str, object]:
    return {"Address": at.host, "Port": at.port}


class _Variables:
    """Environment variables; an empty one is an unset one, as for Consul."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        return Path(text) if text else None

    def truth(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if not text:
            return default
        if text in {"1", "t", "T", "true", "TRUE", "True"}:
            return True
        if text in {"0", "f", "F", "false", "FALSE", "False"}:
            return False
        raise ConfigError(f"{name}={text!r} is neither true nor false; set it to true or false")


def _consul_address(text: str, *, tls: bool) -> str:
    """Return the address with its scheme: ``CONSUL_HTTP_ADDR`` may leave it out, and ``CONSUL_HTTP_SSL`` raises it."""
    if not text:
        text = "127.0.0.1:8500"
    if text.startswith("unix://"):
        if not text.removeprefix("unix://").startswith("/"):
            raise ConfigError(f"CONSUL_HTTP_ADDR={text!r} has no absolute path; write unix:///path/to/socket")
        return text
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme not in {"http", "https"}:
        raise ConfigError(
            f"CONSUL_HTTP_ADDR={text!r} has the scheme {scheme!r}; write http://, https://, unix:// or only HOST:PORT"
        )
    # CONSUL_HTTP_SSL applies to an http address too, as for Consul's own command line.
    address = f"{'https' if tls else scheme}://{rest.rstrip('/')}"
    _check_url(text, address)
    return address


def _check_url(text: str, address: str) -> None:
    if "@" in text:
        # Not quoted: there may be a password in it.
        raise ConfigError(
            "CONSUL_HTTP_ADDR holds a user name; leave it out there and set CONSUL_HTTP_AUTH to user:password"
        )
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigError(f"CONSUL_HTTP_ADDR={text!r} is not an address; write for example 127.0.0.1:8500")


def _chosen(value: int | None, default: int) -> int:
    return default if value is None else value


def _check_name(flag: str, name: str) -> None:
    if not name or name == "*" or name != name.strip() or any(c in "/?#" or not c.isprintable() for c in name):
        raise ConfigError(f"{flag} {name!r} cannot be a service's name; use letters, digits and dashes")


def _check_endpoint(flag: str, address: str, port: int, *, lowest: int) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise ConfigError(f"{flag}: {address!r} is not an IP address; write for example 127.0.0.1") from error
    if not lowest <= port <= 65_535:
        raise ConfigError(f"{flag}: the port {port} is not between {lowest} and 65535")


def _check_meta(key: str, value: str) -> None:
    """The limits are Consul's own; its refusal would come only at registration."""
    if not _META_KEY.fullmatch(key):
        raise ConfigError(f"--meta key {key!r} is not usable; Consul takes 1 to 128 letters, digits, _ and -")
    if len(value) > _MAX_META_VALUE:
        raise ConfigError(f"--meta {key} has {len(value)} characters; Consul takes at most {_MAX_META_VALUE}")
