"""The client of a request that is over: hears nothing, wants nothing."""

from __future__ import annotations

from proxy.http.message import Data, Headers, RequestHead, ResponseHead
from proxy.model import CloseReason


class Nobody:
    """An :class:`proxy.http.streams.Incoming`, in the place of one that would point back."""

    head: RequestHead

    def inform(self, head: ResponseHead) -> None: ...

    def respond(self, head: ResponseHead, *, end: bool) -> None: ...

    def send(self, data: Data) -> bool:
        return True

    def finish(self, trailers: Headers) -> None: ...

    def reset(self, reason: CloseReason, detail: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


NOBODY = Nobody()
