"""Any format makes a line, one line, and with JSONFormat the line is JSON, whatever the peer has sent."""

from __future__ import annotations

import json

import msgspec

from fuzz.draw import Draw
from plugin.assemble.access_logs import access_log_choice
from plugin.consul.api import AccessLogs
from proxy.model import AccessLogFormat, CloseReason
from proxy.records.access_format import render
from proxy.records.access_record import AccessRecord

CODE = ("plugin.assemble.access_logs", "proxy.records.access_format")


def run(data: bytes) -> None:
    draw = Draw(data)
    as_json, record = draw.truth(), _record(draw)
    layout_text = draw.rest().decode("utf-8", "replace")
    settings = AccessLogs(
        enabled=True, json_format=layout_text if as_json else "", text_format="" if as_json else layout_text
    )
    layout = access_log_choice(settings).layout
    assert layout is not None
    # As it arrives in a worker.
    layout = msgspec.msgpack.decode(msgspec.msgpack.encode(layout), type=AccessLogFormat)
    if not layout.parts:
        return
    line = render(layout, record, 1_700_000_000.123456)
    assert line.endswith(b"\n")
    if as_json:
        assert line.count(b"\n") == 1
        assert isinstance(json.loads(line, parse_constant=_no_json), dict)


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def _record(draw: Draw) -> AccessRecord:
    return AccessRecord(
        time="2026-01-01T00:00:00.000000Z",
        worker=1,
        number=draw.below(256),
        client=draw.choice(("127.0.0.1:40000", "[::1]:40000")),
        verdict="refused",
        reason=str(draw.choice(tuple(CloseReason))),
        service=draw.choice(("", "db")),
        server_name=draw.text(),
        source=draw.text(),
        intention=draw.choice(("", "web => db (precedence 9)")),
        endpoint=draw.choice(("", "10.0.0.1:5432 (db.example)")),
        bytes_received=draw.below(256),
        bytes_sent=0,
        duration_ms=1.5,
        detail=draw.text(),
    )
