"""Errors of the data plane, split by who must act.

::

    ProxyError
    ├── FrameError          the two processes disagree: a bug, or a foreign writer on the socket
    ├── MaterialError       certificates, keys or TLS settings that cannot be used: the operator
    ├── PeerError           the client: refused, counted by reason
    └── UpstreamError       the external service: refused, reset or timed out
"""

from __future__ import annotations

from proxy.model import CloseReason


class ProxyError(Exception):
    """Root of this package's errors."""


class FrameError(ProxyError):
    pass


class MaterialError(ProxyError):
    """Names the thing that cannot be used, and the remedy."""


class PeerError(ProxyError):
    """The client cannot be served; ``reason`` is what the log and the metrics say."""

    def __init__(self, reason: CloseReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class UpstreamError(ProxyError):
    """No endpoint of the external service could be used; ``reason`` is what the log and the metrics say."""

    def __init__(self, reason: CloseReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
