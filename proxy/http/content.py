"""What the content types of a request and of its response tell a proxy. Pure."""

from __future__ import annotations

from proxy.http.message import RequestHead, ResponseHead

GRPC = b"application/grpc"


def is_grpc(head: RequestHead) -> bool:
    """Whether the caller speaks gRPC: ``application/grpc``, ``application/grpc+proto`` ..."""
    for name, value in head.headers:
        if name == b"content-type":
            rest = value[len(GRPC) :] if value.startswith(GRPC) else None
            return rest is not None and rest[:1] in (b"", b"+", b";")
    return False


def is_stream(request: RequestHead, response: ResponseHead) -> bool:
    """Whether the response goes on for as long as it likes: it is only required to begin in time."""
    if is_grpc(request):
        return True
    for name, value in response.headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False
