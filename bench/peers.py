"""HAProxy and ghostunnel, set up for the same task as far as they do it: mutual TLS with Consul's leaves, to TCP or
HTTP.

They know nothing of Consul: leaves, roots and services are written into their files once, before they start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import accounting
from bench.generator import Identity
from bench.mesh import CLIENT, PROTOCOLS, BenchMesh, leaf, service
from plugin.dev.processes import Child, can_connect, free_ports

HAPROXY = "HAProxy"
GHOSTUNNEL = "ghostunnel"

_TCP = ("source", "sink", "duplex", "echo")
_HAPROXY_CONFIGURATION = """\
global
    nbthread 1
    maxconn {connections}
    ssl-default-bind-options ssl-min-ver TLSv1.2
    ssl-default-bind-ciphers ECDHE-ECDSA-AES128-GCM-SHA256
    ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
    ssl-default-bind-curves X25519:P-256
defaults
    maxconn {connections}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


class HAProxy:
    """One process with one thread. Server names choose leaf and server; anybody with a leaf of the mesh gets in."""

    label = HAPROXY
    name = "haproxy"
    linked = False

    def __init__(self, mesh: BenchMesh, program: Path, processors: frozenset[int]) -> None:
        self._mesh = mesh
        self._program = program
        self._processors = processors
        self._tcp_port, self._http_port = free_ports(2)
        self._child: Child | None = None

    def address(self, behaviour: str) -> str:
        return f"127.0.0.1:{self._http_port if behaviour in PROTOCOLS else self._tcp_port}"

    def carries(self, behaviour: str) -> bool:
        return behaviour in _TCP or behaviour in PROTOCOLS

    async def start(self) -> None:
        folder = self._mesh.folder
        configuration = folder / "haproxy.cfg"
        leaves = {behaviour: await self._leaf(behaviour) for behaviour in (*_TCP, *PROTOCOLS)}
        listed = folder / "haproxy-leaves.txt"
        listed.write_text("".join(f"{path} {self._mesh.server_name(name)}\n" for name, path in leaves.items()))
        configuration.write_text(self._configuration(listed))
        self._child = Child(self.label, [str(self._program), "-db", "-f", str(configuration)], folder / "haproxy.log")
        await self._child.started(lambda: _all_listen((self._tcp_port, self._http_port)))
        accounting.pin(self.processes(), self._processors)

    async def stop(self) -> None:
        if self._child is not None:
            # Politely it would wait for connections to end.
            await self._child.kill()
            self._child = None

    def processes(self) -> frozenset[int]:
        assert self._child is not None
        return accounting.family(self._child.pid)

    async def _leaf(self, behaviour: str) -> Path:
        """Certificate and key of the linked service in one file, as HAProxy wants them."""
        identity = await leaf(self._mesh.agent, self._mesh.folder, service(behaviour))
        both = self._mesh.folder / f"haproxy-{behaviour}.pem"
        both.touch(mode=0o600)
        both.write_text(identity.certificate.read_text() + identity.key.read_text())
        return both

    def _configuration(self, leaves: Path) -> str:
        bind = f"ssl crt-list {leaves} ca-file {self._mesh.roots} verify required"
        said = "http-request set-header X-Forwarded-Client-Cert Hash=%[ssl_c_sha1,hex]"
        parts = [
            # It refuses to start when it could not open as many files.
            _HAPROXY_CONFIGURATION.format(connections=accounting.allow_descriptors(0) // 2 - 50),
            *("frontend tcp", "    mode tcp", f"    bind 127.0.0.1:{self._tcp_port} {bind}", *self._uses(_TCP)),
            *("frontend http", "    mode http", f"    bind 127.0.0.1:{self._http_port} {bind}", f"    {said}"),
            *self._uses(PROTOCOLS),
        ]
        for behaviour in (*_TCP, *PROTOCOLS):
            speaks = " proto h2" if behaviour in ("http2", "grpc") else ""
            parts += [f"backend {behaviour}", f"    mode {'tcp' if behaviour in _TCP else 'http'}"]
            parts.append(f"    server one 127.0.0.1:{self._mesh.ports[behaviour]}{speaks}")
        return "\n".join(parts) + "\n"

    def _uses(self, behaviours: Iterable[str]) -> list[str]:
        return [f"    use_backend {name} if {{ ssl_fc_sni {self._mesh.server_name(name)} }}" for name in behaviours]


class Ghostunnel:
    """One process for each service, since each has one target; it lets in the one client that it was told of."""

    label = GHOSTUNNEL
    name = "ghostunnel"
    linked = False

    def __init__(self, mesh: BenchMesh, program: Path, processors: frozenset[int]) -> None:
        self._mesh = mesh
        self._program = program
        self._processors = processors
        self._ports: Mapping[str, int] = dict(zip(_TCP, free_ports(len(_TCP)), strict=True))
        self._children: list[Child] = []

    def address(self, behaviour: str) -> str:
        return f"127.0.0.1:{self._ports[behaviour]}"

    def carries(self, behaviour: str) -> bool:
        return behaviour in _TCP

    async def start(self) -> None:
        for behaviour, port in self._ports.items():
            identity = await leaf(self._mesh.agent, self._mesh.folder, service(behaviour))
            self._children.append(self._child(behaviour, port, identity))
        for child, port in zip(self._children, self._ports.values(), strict=True):
            await child.started(lambda port=port: can_connect("127.0.0.1", port))  # type: ignore[misc]
        accounting.pin(self.processes(), self._processors)

    def _child(self, behaviour: str, port: int, identity: Identity) -> Child:
        # Go decides by the processors that it sees when it starts how many threads run at once.
        placed = ["taskset", "--cpu-list", ",".join(map(str, sorted(self._processors))), str(self._program)]
        return Child(
            f"{self.label} ({behaviour})",
            [
                *placed,
                "--quiet=all",
                f"--cert={identity.certificate}",
                f"--key={identity.key}",
                f"--cacert={self._mesh.roots}",
                "server",
                f"--listen=127.0.0.1:{port}",
                f"--target=127.0.0.1:{self._mesh.ports[behaviour]}",
                f"--allow-uri={self._mesh.spiffe_id(CLIENT)}",
            ],
            self._mesh.folder / f"ghostunnel-{behaviour}.log",
        )

    async def stop(self) -> None:
        for child in self._children:
            # Politely it would wait minutes for connections to end.
            await child.kill()
        self._children.clear()

    def processes(self) -> frozenset[int]:
        return frozenset().union(*(accounting.family(child.pid) for child in self._children))


def _all_listen(ports: Iterable[int]) -> bool:
    return all(can_connect("127.0.0.1", port) for port in ports)
