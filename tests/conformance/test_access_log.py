"""``AccessLogs`` of proxy-defaults: the same format gives the same line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import EnvoyTerminatingGateway
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand
from tests.support.eventually import eventually

TOPIC = "Access log"
TEXT = (
    "LINE %REQUESTED_SERVER_NAME% received=%BYTES_RECEIVED% sent=%BYTES_SENT% flags=%RESPONSE_FLAGS%"
    " by=%DOWNSTREAM_PEER_URI_SAN% tls=%DOWNSTREAM_TLS_VERSION% from=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    " at=%DOWNSTREAM_LOCAL_ADDRESS% to=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER% end=%CONNECTION_TERMINATION_DETAILS%"
    " failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% http=%REQ(:METHOD)%,%RESP(SERVER)%,%PROTOCOL% 100%%"
)
SHORT = "LINE %REQUESTED_SERVER_NAME% flags=%RESPONSE_FLAGS% sent=%BYTES_SENT%"
JSON = {
    "line": True,
    "time": "%START_TIME(%Y)%",
    "name": "%REQUESTED_SERVER_NAME%",
    "bytes": ["%BYTES_RECEIVED%", "%BYTES_SENT%"],
    "code": "%RESPONSE_CODE%",
    "method": "%REQ(:METHOD)%",
    "mixed": "sent %BYTES_SENT% to %UPSTREAM_CLUSTER%",
    "nested": {"host": "%UPSTREAM_HOST%", "flags": "%RESPONSE_FLAGS%", "why": "%CONNECTION_TERMINATION_DETAILS%"},
    "constant": 7,
}


def logging(**access_logs: Any) -> dict[str, Any]:
    return {"Kind": "proxy-defaults", "Name": "global", "AccessLogs": {"Enabled": True, **access_logs}}


def before(**access_logs: Any) -> dict[str, Callable[[ConsulAgent], Awaitable[None]]]:
    """A Consul whose proxy-defaults say so before the gateways start."""

    async def write(agent: ConsulAgent) -> None:
        await agent.write_config(logging(**access_logs))

    return {"before": write}


def log_of(stand: Stand) -> Path:
    """Envoy writes to its standard output, ours where the stand's ``--access-log`` says."""
    if isinstance(stand.gateway, EnvoyTerminatingGateway):
        return stand.agent.work_dir / f"{stand.gateway.name}.log"
    return stand.gateway.access_log_path


async def line_of(stand: Stand, connect: Callable[[], Awaitable[object]], wanted: str) -> str:
    """The line, without what differs by its nature, of a connection made now that ``wanted`` is a regular expression
    of. Repeated until there is one: the first ones may be made before a change has arrived."""
    start = log_of(stand).stat().st_size

    async def written() -> str:
        await connect()
        lines = log_of(stand).read_bytes()[start:].decode().splitlines(keepends=True)
        return next((line for line in lines if line.endswith("\n") and re.search(wanted, line)), "")

    return plain(stand, str(await eventually(written, 60.0, what=f"a line like {wanted}")))


def plain(stand: Stand, line: str) -> str:
    # The cluster's id first: it may hold what looks like the end of a name.
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "CLUSTER", line.rstrip("\n"))
    line = re.sub(r"-[eo]\d+\b", "", line)
    line = line.replace(f"127.0.0.1:{stand.gateway.port}", "GATEWAY")
    return re.sub(r"127\.0\.0\.1:\d+", "BACKEND", line)


NAME = "db.default.dc1.internal.CLUSTER.consul"


@conformance(
    TOPIC,
    "A TextFormat gives the same line for a connection that was carried, and for an unknown server name",
    expect={
        "carried": f"LINE {NAME} received=4 sent=4 flags=- by=spiffe://CLUSTER.consul/ns/default/dc/dc1/svc/web"
        f" tls=TLSv1.3 from=127.0.0.1 at=GATEWAY to=BACKEND cluster={NAME} end=- failure=- http=-,-,- 100%",
        "unknown": "LINE nobody.example received=0 sent=0 flags=NC by=- tls=- from=127.0.0.1 at=GATEWAY to=-"
        " cluster=- end=- failure=- http=-,-,- 100%",
    },
    own_consul=before(TextFormat=TEXT),
)
async def test_text_format(stand: Stand) -> Observation:
    await stand.offer()
    carried = await line_of(stand, stand.outcome, "received=4 .* by=spiffe")
    unknown = await line_of(stand, lambda: stand.outcome(name="nobody.example"), "LINE nobody")
    return {"carried": carried, "unknown": unknown}


@conformance(
    TOPIC,
    "A JSONFormat keeps numbers, lists and null, and sorts its keys",
    expect={
        "line": f'{{"bytes":[4,4],"code":0,"constant":7,"line":true,"method":null,"mixed":"sent 4 to {NAME}",'
        f'"name":"{NAME}","nested":{{"flags":"-","host":"BACKEND","why":null}},"time":"YEAR"}}'
    },
    own_consul=before(JSONFormat=json.dumps(JSON)),
)
async def test_json_format(stand: Stand) -> Observation:
    await stand.offer()
    line = await line_of(stand, stand.outcome, r'"bytes":\[4,4\]')
    return {"line": re.sub(r'"time":"\d{4}"', '"time":"YEAR"', line)}


@conformance(
    TOPIC,
    "A service that cannot be dialled has the flags UF,URX",
    expect={"line": f"LINE {NAME.replace('db', 'gone')} flags=UF,URX sent=0"},
    own_consul=before(TextFormat=SHORT),
)
async def test_dial_failure(stand: Stand) -> Observation:
    await stand.offer()
    await stand.register("gone", 1)
    await stand.intention("web", "gone")
    await stand.link("gone")
    return {"line": await line_of(stand, lambda: stand.outcome(service="gone"), "LINE gone.* flags=UF")}


@conformance(
    TOPIC,
    "DisableListenerLogs: Envoy goes on to log what came to no service, this gateway does not; both log all others",
    envoy={"carried": f"LINE {NAME} flags=- sent=4", "an unknown server name": "a line", "not TLS": "a line"},
    ours={"carried": f"LINE {NAME} flags=- sent=4", "an unknown server name": "no line", "not TLS": "no line"},
    decision="018",
    own_consul=before(TextFormat=SHORT, DisableListenerLogs=True),
)
async def test_disabled_listener_logs(stand: Stand) -> Observation:
    await stand.offer()
    await line_of(stand, stand.outcome, "sent=4")
    start = log_of(stand).stat().st_size
    await stand.outcome(name="nobody.example")
    reader, writer = await asyncio.open_connection("127.0.0.1", stand.gateway.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        await reader.read()
    writer.close()
    # Lines are written in the order in which connections end: those two would be before this one.
    carried = await line_of(stand, stand.outcome, "sent=4")
    lines = log_of(stand).read_bytes()[start:].decode().splitlines()
    strangers = [line for line in lines if re.search("LINE (nobody|-)", line)]
    return {
        "carried": carried,
        "an unknown server name": "a line" if any("nobody" in line for line in strangers) else "no line",
        "not TLS": "a line" if any("LINE -" in line for line in strangers) else "no line",
    }


DENIED = (
    "LINE %REQUESTED_SERVER_NAME% to=%UPSTREAM_HOST% received=%BYTES_RECEIVED% end=%CONNECTION_TERMINATION_DETAILS%"
)


@conformance(
    TOPIC,
    "A denied caller: Envoy has dialled and read for it, this gateway has not",
    envoy={"line": f"LINE {NAME} to=BACKEND received=4 end=rbac_access_denied_matched_policy[none]"},
    ours={"line": f"LINE {NAME} to=- received=0 end=rbac_access_denied_matched_policy[none]"},
    decision="018",
    own_consul=before(TextFormat=DENIED),
)
async def test_denied(stand: Stand) -> Observation:
    await stand.offer()
    return {"line": await line_of(stand, lambda: stand.outcome("cron"), "end=rbac")}


@conformance(
    TOPIC,
    "A format changed while running takes effect",
    expect={"line": f"LINE {NAME} second"},
    own_consul=before(TextFormat="LINE %REQUESTED_SERVER_NAME% first"),
)
async def test_changed(stand: Stand) -> Observation:
    await stand.offer()
    await stand.agent.write_config(logging(TextFormat="LINE %REQUESTED_SERVER_NAME% second"))
    return {"line": await line_of(stand, stand.outcome, "second")}


@conformance(
    TOPIC,
    "A format with an operator that does not exist stops Envoy's listener; here it costs its own place, and is named",
    envoy={"linked service": "refused", "line": "", "reported": False},
    ours={"linked service": "echo", "line": f"LINE {NAME} nope=- sent=4", "reported": True},
    decision="018",
    own_consul={},
)
async def test_unknown_operator(stand: Stand) -> Observation:
    text = "LINE %REQUESTED_SERVER_NAME% nope=%NOPE% sent=%BYTES_SENT%"
    await stand.agent.write_config(logging(TextFormat=text))
    backend = await stand.backend()
    await stand.register("db", backend.port)
    await stand.intention("web", "db")
    await stand.link("db")
    if isinstance(stand.gateway, EnvoyTerminatingGateway):
        await stand.settled()
        return {"linked service": await stand.outcome(), "line": "", "reported": False}
    await stand.reached()
    warnings = (await stand.gateway.status())["warnings"]
    return {
        "linked service": await stand.outcome(),
        "line": await line_of(stand, stand.outcome, "sent=4"),
        "reported": any("%NOPE% is not known" in warning for warning in warnings),
    }
