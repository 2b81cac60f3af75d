"""``host:port`` texts, and the addresses a gateway binds. Pure: nothing is resolved or bound here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plugin.errors import ConfigError

_LONGEST_SOCKET_PATH = 107
"""``sun_path`` of unix(7) without its final zero."""
_VIRTUAL = "consul-virtual"
_BIND_SETTINGS = ("no_default_bind", "bind_tagged_addresses", "bind_addresses")


@dataclass(frozen=True, slots=True, order=True)
class HostPort:
    host: str
    """An IP address, without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, *, what: str = "address", zero: bool = False) -> HostPort:
        """Read ``127.0.0.1:8443`` or ``[::1]:8443``. ``zero`` allows port 0 (chosen by the kernel).

        :raises ConfigError: when it is not an IP address and a port.
        """
        host, separator, port_text = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            address = ipaddress.ip_address(bare)
            port = int(port_text)
        except ValueError:
            address, port = None, -1
        bracketed = bare != host
        if not separator or address is None or bracketed != (address.version == 6):
            raise ConfigError(f"{what} {text!r} is not IP:PORT; write for example 127.0.0.1:8443 or [::1]:8443")
        if not (0 if zero else 1) <= port <= 65535:
            raise ConfigError(f"{what} {text!r}: the port must be between 1 and 65535")
        return cls(str(address), port)


def socket_path(text: str, *, what: str = "--admin-address") -> Path | None:
    """The path of ``unix:///PATH``; ``None`` for any other address. :raises ConfigError: when it cannot be used."""
    if not text.startswith("unix:"):
        return None
    path = text.removeprefix("unix://")
    if not path.startswith("/") or not path.isascii() or len(path) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"{what} {text!r} has no absolute ASCII path of at most {_LONGEST_SOCKET_PATH} characters;"
            " write for example unix:///run/consul-tgw/admin.sock"
        )
    return Path(path)


def bind_addresses(
    registered: HostPort,
    proxy_config: Mapping[str, object],
    tagged: Mapping[str, HostPort] | None = None,
) -> tuple[HostPort, ...]:
    """Every address to listen on: the registered one, and those of ``Proxy.Config``, as Envoy gateways bind them.

    The keys are ``envoy_gateway_no_default_bind``, ``envoy_gateway_bind_tagged_addresses`` and
    ``envoy_gateway_bind_addresses`` (https://developer.hashicorp.com/consul/docs/connect/proxies/envoy), also with
    their older prefix ``envoy_mesh_gateway_``. Values are read as loosely as Consul reads them.

    :raises ConfigError: when an address is unusable, or nothing is left to bind.
    """
    named: list[tuple[str, HostPort]] = []
    if not _truth(_setting(proxy_config, "no_default_bind")):
        named.append(("default", HostPort(registered.host or "0.0.0.0", registered.port)))
    if _truth(_setting(proxy_config, "bind_tagged_addresses")):
        # The virtual addresses that Consul adds by itself are not addresses of this host.
        named += [(name, _tagged(name, at)) for name, at in (tagged or {}).items() if not name.startswith(_VIRTUAL)]
    named += _listed(_setting(proxy_config, "bind_addresses"))
    if not named:
        raise ConfigError(
            "envoy_gateway_no_default_bind leaves nothing to listen on; set envoy_gateway_bind_addresses as well"
        )
    return tuple(dict.fromkeys(at for _, at in sorted(named, key=lambda item: item[0])))


def binds_itself(proxy_config: Mapping[str, object]) -> bool:
    """Whether ``Proxy.Config`` says anything about what to bind."""
    return any(_setting(proxy_config, name) is not None for name in _BIND_SETTINGS)


def _tagged(name: str, at: HostPort) -> HostPort:
    """:raises ConfigError: when it is a hostname: there is nothing to bind then, as for Envoy."""
    return HostPort.parse(str(at), what=f"envoy_gateway_bind_tagged_addresses: TaggedAddresses[{name!r}]")


def _setting(proxy_config: Mapping[str, object], name: str) -> object:
    return proxy_config.get(f"envoy_gateway_{name}", proxy_config.get(f"envoy_mesh_gateway_{name}"))


def _truth(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in {"1", "t", "true"}
    return bool(value)


def _listed(value: object) -> list[tuple[str, HostPort]]:
    if value is None:
        return []
    if not isinstance(value, Mapping):
        raise ConfigError('envoy_gateway_bind_addresses must look like {"name": {"Address": IP, "Port": PORT}}')
    return [(str(name), _listed_one(str(name), entry)) for name, entry in value.items()]


def _listed_one(name: str, entry: object) -> HostPort:
    fields = {str(k).lower(): v for k, v in entry.items()} if isinstance(entry, Mapping) else {}
    what = f"envoy_gateway_bind_addresses[{name!r}]"
    host = str(fields.get("address", ""))
    text = f"[{host}]:{fields.get('port', '')}" if ":" in host else f"{host}:{fields.get('port', '')}"
    return HostPort.parse(text, what=what)
