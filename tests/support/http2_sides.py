"""A server's connection of HTTP/2 and the client that torments it."""

from __future__ import annotations

from collections.abc import Callable

from hyperframe.frame import GoAwayFrame

from proxy.http.h2.server import H2Server
from tests.support.http2_peer import GET, POST, RawPeer, block
from tests.support.http_sides import Bench, Exchange, Session


class RawSides:
    """The client sends frames made by hand."""

    def __init__(
        self, *, small: bool = False, max_head_bytes: int = 8_192, greeting: bytes = b"", **options: float
    ) -> None:
        """:param greeting: instead of the preface and SETTINGS."""
        self.bench = Bench()
        self.session = Session()
        self.wire, connected = self.bench.pair(small=small)
        self.server = H2Server(self.wire, self.session, max_head_bytes=max_head_bytes, **options)  # type: ignore[arg-type]
        self.peer = RawPeer(self.bench, connected, client=True)
        self.server.start()
        if greeting:
            self.peer.send_bytes(greeting)
        else:
            self.peer.start()

    def until(self, condition: Callable[[], object]) -> None:
        self.bench.until(condition)

    def request(self, stream: int = 1, *, end: bool = True) -> Exchange:
        """A plain one."""
        heard = len(self.session.exchanges)
        self.peer.send(*(block(GET, stream, "END_STREAM") if end else block(POST, stream)))
        self.until(lambda: len(self.session.exchanges) > heard)
        return self.session.exchanges[heard]

    def still_serves(self, stream: int) -> None:
        self.session.on_exchange = lambda _exchange: None
        exchange = self.request(stream)
        self.until(lambda: exchange.over)
        assert self.session.closed is None

    def last_word(self) -> GoAwayFrame:
        """Of a connection that the server ends."""
        self.peer.expect_end()
        return self.peer.of(GoAwayFrame)[-1]
