"""What the parsers and the corpora of fuzzing answer, as JSON: ``python -m tests.compiled.answers``, in the form that
the environment asks for. It is run once in each form.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator

from proxy import compiled

compiled.use()

from fuzz import target as targets  # noqa: E402
from proxy.http.errors import BadRequest, BadResponse  # noqa: E402
from proxy.http.h1.body import BadBody, BodyReader, ChunkedBody, CountedBody  # noqa: E402
from proxy.http.h1.head import HeadBuffer, HeadTooLong  # noqa: E402
from proxy.http.h1.request import read_request  # noqa: E402
from proxy.http.h1.response import read_response  # noqa: E402
from proxy.http.h1.text import request_text, response_text  # noqa: E402
from proxy.http.message import Data  # noqa: E402
from tests.smuggling.case import Case  # noqa: E402
from tests.smuggling.corpus import CORPUS  # noqa: E402

_SPLITS = (1, 7, 65_536)
_ERRORS = (BadRequest, BadResponse, BadBody, HeadTooLong, ValueError)


def answers() -> Iterator[tuple[str, str]]:
    yield "code", str(compiled.use())
    yield "extension", str(not hasattr(read_request, "__code__"))
    for case in CORPUS:
        if isinstance(case, Case):
            for split in _SPLITS:
                yield f"{case.name} in pieces of {split}", _said(_read, case.sent, split)
                yield f"{case.name} chunks in pieces of {split}", _said(_body, case.sent, split)
    for name in ("h1_request", "h1_response"):
        for entry in targets.load(name).entries():
            head = entry.read_bytes().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            yield f"request {entry.name}", _said(_head, head)
            yield f"response {entry.name}", _said(_response, head)


def _said(ask: Callable[..., object], *arguments: object) -> str:
    try:
        return repr(ask(*arguments))
    except _ERRORS as error:
        return f"{type(error).__name__}: {error}"


def _head(raw: bytes) -> object:
    head, close = read_request(raw)
    return head, close, request_text(head, end=False), request_text(head, end=True)


def _response(raw: bytes) -> object:
    received = read_response(raw)
    return received, response_text(received.head, b"content-length: 1\r\n", close=received.close)


def _pieces(data: bytes, split: int) -> Iterator[memoryview]:
    yield from (memoryview(data[at : at + split]) for at in range(0, len(data), split))


def _read(data: bytes, split: int) -> object:
    """Heads and bodies, one after the other, as a server takes them."""
    buffer, body, said = HeadBuffer(4_096), bytearray(), list[object]()
    reader: BodyReader | None = None

    def deliver(part: Data) -> None:
        body.extend(part)

    for piece in _pieces(data, split):
        left = piece
        while left:
            if reader is not None:
                taken = reader.read(left, deliver)
                left = left[taken:]
                if reader.done:
                    said.append((bytes(body), reader.trailers))
                    reader = None
                    body.clear()
                continue
            raw, left = buffer.take(left)
            if raw:
                head, close = read_request(raw)
                said.append((head, close))
                if head.length:
                    reader = CountedBody(head.length) if head.length > 0 else ChunkedBody(extensions=False)
    return said, bytes(body), bytes(buffer.begun)


def _body(data: bytes, split: int) -> object:
    """What follows the first head, as chunks of a response."""
    reader, body = ChunkedBody(extensions=True), bytearray()
    for piece in _pieces(data.partition(b"\r\n\r\n")[2], split):
        if not reader.done:
            reader.read(piece, body.extend)
    return bytes(body), reader.done, reader.trailers


_IN_MEMORY = {"h1_request", "h1_response", "h2_client", "h2_server"}
"""Drive connections over a wire of their own, which is not the class that the compiled ones were made for."""


def held() -> Iterator[tuple[str, str]]:
    """Every input that fuzzing has kept, against the invariant of its target."""
    for target in targets.every():
        if target.name not in _IN_MEMORY and any(module.startswith("proxy") for module in target.code):
            for entry in target.entries():
                target.run(entry.read_bytes())
            yield f"held by {target.name}", str(len(target.entries()))


if __name__ == "__main__":
    json.dump(dict([*answers(), *held()]), sys.stdout)
