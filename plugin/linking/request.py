"""What an operator asks for, checked as far as that is possible without Consul. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from plugin.linking.edit import Refused

DEFAULT_GATEWAY = "terminating-gateway"

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DNS_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_MAX_LABEL = 63
_MAX_HOST = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRequest:
    service: str
    host: str
    """An IP address without brackets, or a hostname."""
    port: int
    gateway: str = DEFAULT_GATEWAY
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    sni: str = ""
    allow: tuple[str, ...] = ()
    """Source services, or ``*``."""
    node: str = ""
    """Empty: a name made from the host."""
    id: str = ""
    """Empty: the service's name."""
    replace: bool = False
    """What is there and contradicts may be replaced."""
    create: bool = False
    """A terminating-gateway entry that does not exist may be created."""

    @property
    def node_name(self) -> str:
        return self.node or f"external-{re.sub(r'[^A-Za-z0-9]+', '-', self.host).strip('-')}"

    @property
    def instance_id(self) -> str:
        return self.id or self.service

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def check(self) -> tuple[str, ...]:
        """Warnings. :raises Refused: with every reason why Consul, or a gateway, would not take it."""
        reasons = tuple(self._reasons())
        if reasons:
            raise Refused(*reasons)
        return tuple(self._warnings())

    def _reasons(self) -> Iterator[str]:
        yield from name_reasons(self.service, self.gateway)
        if bool(self.cert_file) != bool(self.key_file):
            yield "--cert and --key go together: a client certificate needs its private key"
        if (self.cert_file or self.key_file) and not self.ca_file:
            yield "--cert and --key need --ca: Consul takes a client certificate only with the CA of the service"
        if self.sni and not self.ca_file:
            yield "--sni needs --ca: without a CA file a gateway speaks no TLS to the service, and SNI has no effect"
        for source in self.allow:
            if source != "*" and not _NAME.fullmatch(source):
                yield f"--allow {source!r} is not the name of a service, nor *"
            if source == self.gateway:
                yield f"--allow {source!r} is the gateway itself: name the services that call"

    def _warnings(self) -> Iterator[str]:
        if not _DNS_LABEL.fullmatch(self.service):
            yield f"the name {self.service} cannot be looked up by DNS: Consul's DNS takes letters, digits and hyphens"
        if self.ca_file and not self.sni:
            yield (
                "no --sni: the chain of the service's certificate is verified, its name is not; any certificate of that"
                " CA will do"
            )
        if "*" in self.allow:
            yield "--allow * lets in every service of the mesh that has no intention of its own"


def name_reasons(service: str, gateway: str) -> Iterator[str]:
    """Why these names cannot be those of a linked service and its gateway."""
    for what, name in (("service", service), ("gateway", gateway)):
        if name == "*":
            yield f"* is not the name of one {what}; a link for every service is written with `consul config write`"
        elif not _NAME.fullmatch(name):
            yield f"{name!r} cannot be the name of a {what}: use letters, digits, hyphens, dots and underscores"
        elif any(len(label) > _MAX_LABEL for label in name.split(".")):
            yield f"{name!r} cannot be the name of a {what}: a server name takes {_MAX_LABEL} characters between dots"
    if service == gateway:
        yield f"{service} is the gateway's own name: a gateway cannot be linked to itself"
    if service == "consul":
        yield "consul is the service of Consul's own servers"


def parse_target(text: str) -> tuple[str, int]:
    """Read ``db.example:5432``, ``10.0.0.9:5432`` or ``[fd00::9]:5432``. :raises Refused: when it is none of them."""
    host, separator, port_text = text.rpartition(":")
    if not separator or not host:
        raise Refused(f"{text!r} is not ADDRESS:PORT; write for example 10.0.0.9:5432, db.example:80 or [fd00::9]:443")
    if not (_PORT.fullmatch(port_text) and int(port_text) <= 65535):
        raise Refused(f"{text!r}: the port must be a number between 1 and 65535")
    return _host(host, text), int(port_text)


def _host(host: str, text: str) -> str:
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        labels = host.rstrip(".").split(".")
        usable = len(host) <= _MAX_HOST and all(len(one) <= _MAX_LABEL and _HOST_LABEL.fullmatch(one) for one in labels)
        if bracketed or not usable or labels[-1].isdigit():
            raise Refused(f"{text!r}: {host!r} is neither an IP address nor a hostname") from None
        return host.rstrip(".").lower()
    if bracketed != (address.version == 6):
        raise Refused(f"{text!r}: an IPv6 address, and only that, is written in brackets: [fd00::9]:5432")
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise Refused(
            f"{text!r}: %{address.scope_id} is an interface of one machine, and the catalog is read on all of them;"
            " write an address that means the same everywhere"
        )
    if address.is_unspecified or address.is_multicast:
        raise Refused(f"{text!r}: {address} is not the address of one host")
    return str(address)
