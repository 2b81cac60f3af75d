"""Asks a running gateway's admin server, for the commands that show something of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import aiohttp
import msgspec

from plugin.addresses import HostPort, socket_path
from plugin.admin.token import read_secret
from plugin.answers.status import Status
from plugin.errors import ConfigError, GatewayError
from plugin.process.runtime_dir import base_directory, gateway_directories, read_admin_address, read_admin_token

TIMEOUT_S = 10.0
Headers = Sequence[tuple[str, str]]
_T = TypeVar("_T")


class NotRunning(GatewayError):
    """No gateway answers."""


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """As ``asyncio.run``, but an interrupt ends it wherever it is.

    asyncio's own handler cancels the task, and whatever then waits in a library may take the cancelling for its own.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(coroutine)
    former = signal.signal(signal.SIGINT, _interrupted)
    try:
        return asyncio.run(coroutine)
    finally:
        signal.signal(signal.SIGINT, former)


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def fetch(path: str, *, service: str, admin_address: str, runtime_dir: Path | None, headers: Headers = ()) -> bytes:
    """The body of ``path`` from the gateway that is meant. :raises NotRunning: when there is none, or several."""
    secret = read_secret(None)
    return _run(_ask("GET", path, service, admin_address, runtime_dir, secret, headers=headers))


@dataclass(frozen=True, slots=True)
class Found:
    """A gateway that was found once and is asked again and again."""

    address: str
    secret: str = field(repr=False)

    def fetch(self, path: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
        """The body of ``path``. :raises NotRunning: when it does not answer."""
        return _run(_request("GET", self.address, path, self.secret, timeout_s=timeout_s))


def find(*, service: str, admin_address: str, runtime_dir: Path | None, timeout_s: float = TIMEOUT_S) -> Found:
    """The gateway that is meant. :raises NotRunning: when there is none, or several."""
    secret = read_secret(None)
    if admin_address:
        return Found(admin_address, secret)
    base = base_directory(runtime_dir)
    if runtime_dir is None:
        _check_owner(base)
    return Found(_run(_find(service, base, secret, timeout_s)), secret)


def change(
    path: str,
    *,
    service: str,
    admin_address: str,
    runtime_dir: Path | None,
    token_file: Path | None,
    body: object = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Have the gateway that is meant do what ``path`` is. :raises NotRunning: when there is none, or it refuses.

    The token is that of ``token_file`` or of the variable, else the one in the gateway's runtime directory.
    """
    secret = read_secret(token_file)
    sent = {} if body is None else body
    return _run(_ask("POST", path, service, admin_address, runtime_dir, secret, sent, timeout_s=timeout_s))


def find_directory(service: str, runtime_dir: Path | None) -> Path:
    """The runtime directory of the gateway that is meant. :raises NotRunning: when there is none, or several."""
    base = base_directory(runtime_dir)
    if runtime_dir is None:
        _check_owner(base)
    address = _run(_find(service, base, ""))
    return next(directory for directory in gateway_directories(base) if read_admin_address(directory) == address)


async def _ask(
    method: str,
    path: str,
    service: str,
    admin_address: str,
    runtime_dir: Path | None,
    secret: str,
    body: object = None,
    headers: Headers = (),
    *,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    base = base_directory(runtime_dir)
    if not admin_address:
        if runtime_dir is None:
            _check_owner(base)
        admin_address = await _find(service, base, secret)
    if not secret and method != "GET":
        secret = _own_token(base, admin_address)
    return await _request(method, admin_address, path, secret, body, headers, timeout_s=timeout_s)


def _check_owner(base: Path) -> None:
    """Where anybody may make a folder, what lies in somebody else's is no gateway of ours."""
    if base.exists() and base.stat().st_uid not in (0, os.geteuid()):
        raise NotRunning(f"{base} belongs to another user; say which gateway is meant with --runtime-dir")


def _own_token(base: Path, address: str) -> str:
    for directory in gateway_directories(base):
        with contextlib.suppress(OSError):
            if read_admin_address(directory) == address:
                return read_admin_token(directory)
    return ""


async def _find(service: str, base: Path, secret: str, timeout_s: float = TIMEOUT_S) -> str:
    running: dict[str, Status] = {}
    for directory in gateway_directories(base):
        try:
            address = read_admin_address(directory)
            answer = await _request("GET", address, "/api/status", secret, timeout_s=timeout_s)
            running[address] = msgspec.json.decode(answer, type=Status)
        except (OSError, GatewayError, msgspec.MsgspecError):
            continue
    suitable = [a for a, status in running.items() if service in ("", status.service, status.service_id)]
    if len(suitable) == 1:
        return suitable[0]
    if not suitable:
        whose = f"gateway {service}" if service else "gateway"
        raise NotRunning(
            f"no running {whose} was found under {base}; start it, or say where it is with --admin-address"
            " or --runtime-dir"
        )
    names = ", ".join(f"{running[a].service_id} ({a})" for a in suitable)
    raise NotRunning(f"several gateways are running: {names}; choose one with --service or --admin-address")


async def _request(
    method: str,
    address: str,
    path: str,
    secret: str,
    body: object = None,
    headers: Headers = (),
    *,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    try:
        socket = socket_path(address)
        where = "localhost" if socket is not None else str(HostPort.parse(address, what="admin address"))
    except ConfigError as error:
        raise NotRunning(str(error)) from error
    connector = None if socket is None else aiohttp.UnixConnector(str(socket))
    sent = [*headers, *([("Authorization", f"Bearer {secret}")] if secret else [])]
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s), connector=connector) as session,
            session.request(method, f"http://{where}{path}", json=body, headers=sent) as answer,
        ):
            told = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise NotRunning(f"no gateway answers at {address}: {str(error) or 'it took too long'}") from error
    text = told.decode(errors="replace").strip()
    if answer.status == 400:
        raise ConfigError(text)
    if answer.status >= 300:
        raise NotRunning(f"{address}{path} answered {answer.status}: {text}")
    return told
