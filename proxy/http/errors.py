"""What goes wrong in HTTP, and what the client is told."""

from __future__ import annotations


class BadRequest(Exception):
    """A request that cannot be taken: ambiguous, malformed or too large. It is answered, then the connection ends.

    :param status: 400, 414, 417, 431, 501, 505 ...
    :param what: names the thing, in the words of the RFC; for the log, and never with bytes of the request in it
        that could break a line.
    """

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


class BadResponse(Exception):
    """The external service does not speak HTTP as it should. The client gets 502, the connection is not used again."""
