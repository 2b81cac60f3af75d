"""The figures in ``docs/comparison.md``, filled in from what was measured: nobody copies them by hand. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench import tables
from bench.figures import ENVOY, OURS, Row
from bench.measures import PARTS, SECTIONS
from bench.results import Results, rows

BEGIN = "<!-- figures: written by make bench -->"
END = "<!-- end of figures -->"

_CHOSEN = {
    "bulk-down-1": "Bulk from the external service, one connection, GiB for each CPU second",
    "bulk-up-1": "Bulk to the external service, one connection, GiB for each CPU second",
    "echo-256": "Messages of 128 bytes on 256 connections, round trips for each CPU second",
    "echo-p50": "Echo of 128 bytes, median, microseconds",
    "echo-p99": "Echo of 128 bytes, 99th percentile, microseconds",
    "new-full": "New mutual-TLS connections for each CPU second",
    "new-resumed": "The same by clients that offer a session",
    "http1": "Small requests of HTTP/1.1 for each CPU second",
    "http2": "Small requests of HTTP/2 for each CPU second",
    "grpc-unary": "Unary calls of gRPC for each CPU second",
    "http-down": "Responses of 1 MiB over HTTP/1.1, GiB for each CPU second",
    "http-up": "Requests of 1 MiB over HTTP/1.1, GiB for each CPU second",
    "http1-p50": "One request of HTTP/1.1, median, microseconds",
    "refused": "Deny written until a new connection is refused, milliseconds",
    "ended": "Deny written until live connections have ended, milliseconds",
    "memory-1000": "Memory for each of 1,000 idle connections, KiB",
    "memory-10000": "Memory for each of 10,000 idle connections, KiB",
    "memory-base": "Memory of all its processes before, MiB",
}
"""What of the page is told there, by key."""


def filled(page: str, results: Results) -> str:
    """``page`` with what is between its two marks written anew.

    :raises ValueError: when a mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END} in the page: where do the figures go?")
    return "\n".join([before + BEGIN, "", *_lines(results), "", END]) + after


def _lines(results: Results) -> list[str]:
    found = {row.measure.key: row for part in PARTS for row in rows(results, SECTIONS[part])}
    chosen = [(told, found[key]) for key, told in _CHOSEN.items() if key in found]
    cells = [(told, _figure(row, ENVOY), _figure(row, OURS)) for told, row in chosen]
    table = tables.markdown(("Measured, one worker each", ENVOY, OURS), cells)
    return [*table, "", *_sentence([row for _, row in chosen])]


def _figure(row: Row, label: str) -> str:
    if label == ENVOY and row.measure.key == "ended" and row.envoy is None:
        return "do not end"
    return tables.median(row.values.get(label), row.measure.digits)


def _sentence(chosen: Sequence[Row]) -> list[str]:
    ahead = {True: "this gateway", False: "Envoy"}
    lists: dict[bool, list[str]] = {True: [], False: []}
    for row in chosen:
        if row.ratio is None:
            continue
        better = row.ratio.median if row.measure.more_is_better else 1 / row.ratio.median
        # What lies within the spread of the rounds is no difference.
        if row.ratio.lowest <= 1 <= row.ratio.highest:
            continue
        lists[better > 1].append(f"{_lowered(row.measure.name)} ({max(better, 1 / better):.2f} x)")
    return [
        f"- Better with {ahead[ours]} beyond the spread of rounds: {'; '.join(names)}."
        for ours, names in lists.items()
        if names
    ]


def _lowered(name: str) -> str:
    kept = ("HTTP", "gRPC")
    return name if name.startswith(kept) else name[0].lower() + name[1:]
