"""What goes wrong in HTTP, and what the client is told."""

from __future__ import annotations

from proxy.errors import PeerError
from proxy.model import CloseReason


def loss_of_client(error: Exception) -> tuple[CloseReason, str]:
    """What is logged of a client's connection that broke down."""
    if isinstance(error, PeerError):
        return error.reason, str(error)
    if isinstance(error, OSError):
        return CloseReason.CLIENT_RESET, error.strerror or str(error)
    return CloseReason.INTERNAL, f"{type(error).__name__}: {error}"


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
