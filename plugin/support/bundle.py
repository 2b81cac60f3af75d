"""Gathers a support bundle: every part by itself, so that one that cannot be had costs only that one."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import platform
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from plugin.answers.status import Status
from plugin.check import check_gateway
from plugin.consul.client import ConsulClient
from plugin.errors import ConfigError, GatewayError
from plugin.settings import ConsulSettings
from plugin.support.processes import process_facts
from plugin.support.redaction import redacted
from plugin.version import code_text, version_text

CONNECTIONS = 1_000
_LIBRARIES = ("aiohttp", "cryptography", "google-re2", "h2", "httptools", "msgspec", "pyOpenSSL")
_CHECK_PATIENCE_S = 5.0
_ANSWER_S = 10.0
_README = """\
A support bundle of consul-tgw, made {when}.

It holds names and addresses of services and callers, and paths of requests under way. It holds no private key, no
token and no password: keys are left out where they are gathered, and a last look takes out what looks like one.
Read it before you give it to anybody: all files are plain text.

{contents}
The log of the gateway is not in it, since the gateway does not keep it: add what matters, for example
    journalctl --unit consul-tgw --since -1h
"""


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    what: str
    """What is in it, in words."""
    get: Callable[[], bytes]
    """:raises GatewayError: when it cannot be had: that goes into the bundle instead."""


class Content(msgspec.Struct, frozen=True):
    name: str
    what: str
    size: int
    """Bytes."""
    problem: str = ""


def parts(fetch: Callable[[str], bytes], environment: Mapping[str, str]) -> Iterator[Part]:
    """``fetch`` asks the admin API of the gateway for a path."""
    status_body = fetch("/api/status")
    status = msgspec.json.decode(status_body, type=Status)

    def page(path: str) -> Callable[[], bytes]:
        return lambda: msgspec.json.format(fetch(path), indent=2)

    yield Part("version.json", "versions of the program, of Python, of libraries and of the kernel", _version)
    yield Part("config.json", "settings, and where each came from", page("/api/config"))
    yield Part("status.json", "state of services, workers, watches and registration", lambda: status_body)
    yield Part("snapshot.json", "what the workers should have, without private keys", page("/api/snapshot"))
    yield Part(
        "connections.json",
        f"the first {CONNECTIONS} live connections: addresses of clients, callers, paths of requests",
        page(f"/api/connections?limit={CONNECTIONS}"),
    )
    yield Part("traffic.json", "counters by service and caller", page("/api/traffic"))
    yield Part("certificates.json", "certificates, when they end, paths of files", page("/api/certificates"))
    yield Part("events.json", "what changed lately", page("/api/events"))
    yield Part("metrics.txt", "metrics, as Prometheus gets them", lambda: fetch("/metrics"))
    yield Part("processes.json", "memory, descriptors and limits of each process", lambda: _processes(status))
    yield Part("consul.json", "version and datacenter of the Consul agent", lambda: asyncio.run(_consul(environment)))
    yield Part("check.json", "what consul-tgw check finds", lambda: asyncio.run(_check(environment, status)))


def gather(
    every: Iterator[Part], secrets: frozenset[bytes], *, begun: Callable[[str], None] = lambda name: None
) -> dict[Content, bytes]:
    """``begun`` is called with the name of each part."""
    found: dict[Content, bytes] = {}
    for part in every:
        begun(part.name)
        problem = ""
        try:
            data = part.get()
        except (GatewayError, OSError, msgspec.MsgspecError) as error:
            problem = str(error)
            data = f"not there: {problem}\n".encode()
        data = redacted(data, secrets)
        found[Content(part.name, part.what, len(data), redacted(problem.encode(), secrets).decode())] = data
    return found


def write(found: Mapping[Content, bytes], path: Path, now_s: float) -> None:
    """A tar file that only this user may read. :raises ConfigError: when it cannot be written, or is there already."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    contents = "".join(f"    {one.name:20} {one.what}\n" for one in found)
    files = {"README.txt": _README.format(when=when, contents=contents).encode()}
    files |= {one.name: data for one, data in found.items()}
    folder = path.name.partition(".")[0]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(now_s), 0o600
                archive.addfile(entry, io.BytesIO(data))
    except FileExistsError as error:
        raise ConfigError(f"{path} is there already; name another file") from error
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}; name another file") from error


def _version() -> bytes:
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            libraries[name] = "not installed"
    told = {
        "consul-tgw": version_text(),
        "python": sys.version,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "libraries": libraries,
        "workers run": code_text(),
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=2)


def _processes(status: Status) -> bytes:
    every = [process_facts("control", status.pid)]
    every += [process_facts(f"worker {one.index}", one.pid) for one in status.workers]
    return msgspec.json.format(msgspec.json.encode(every), indent=2)


class _Config(msgspec.Struct, rename="pascal"):
    version: str = ""
    revision: str = ""
    datacenter: str = ""
    server: bool = False


class _Self(msgspec.Struct, rename="pascal"):
    """``GET /v1/agent/self``: everything else of it stays where it is."""

    config: _Config


async def _consul(environment: Mapping[str, str]) -> bytes:
    async with ConsulClient(ConsulSettings.from_environment(environment)) as client:
        reply = await client.transport.request("GET", "/v1/agent/self", (), timeout_s=_ANSWER_S)
    found = msgspec.json.decode(reply.body, type=_Self).config
    return msgspec.json.format(msgspec.json.encode(found), indent=2)


async def _check(environment: Mapping[str, str], status: Status) -> bytes:
    # What the watches complain about is in the report.
    logging.getLogger().setLevel(logging.CRITICAL)
    settings = ConsulSettings.from_environment(environment)
    report = await check_gateway(settings, status.service, patience_s=_CHECK_PATIENCE_S, dns_servers=())
    return msgspec.json.format(msgspec.json.encode(report), indent=2)
