"""Why goals are missed, as far as it was found. Shown for a measure only while it misses its goal."""

from __future__ import annotations

_HANDSHAKE = (
    "Most of it is the library: its handshake alone, in memory, costs several times what the signature, the "
    "verification and the exchange in it do ([limits](#limits)). Envoy's is another, BoringSSL."
)
_NO_SESSIONS = (
    "This gateway gives no sessions to resume ([003](decisions/003-no-resumption.md)), so each of these is a full "
    "handshake, while Envoy's gateway resumes and neither signs nor verifies."
)
_HTTP1 = (
    "Hundreds of small steps of the interpreter for each request, none of which stands out: "
    "[056](decisions/056-what-a-request-costs.md)."
)
_HTTP2 = (
    "Frames, lists of headers and windows are each kept by a library written in Python on both sides of the "
    "gateway: [035](decisions/035-http2-frame-by-frame.md), [056](decisions/056-what-a-request-costs.md)."
)
_MESSAGES = (
    "A round trip is four calls of the kernel that move data, two records of TLS and two wake-ups in both gateways; "
    "the difference is what the interpreter does between them."
)
_MEMORY = (
    "Nine tenths are OpenSSL's: a session that has not begun yet takes 16 KB, the client's certificate in it another "
    "5, and the two memory buffers keep 3 of the handshake. All objects of the interpreter together take 3 KB."
)

REASONS = {
    "new-full": _HANDSHAKE,
    "new-resumed": _NO_SESSIONS,
    "sidecar-new-sidecar": _NO_SESSIONS + " Sidecars offer sessions.",
    "http1": _HTTP1,
    "sidecar-http1": _HTTP1,
    "http2": _HTTP2,
    "sidecar-http2": _HTTP2,
    "echo-256": _MESSAGES,
    "sidecar-echo-256": _MESSAGES,
    "memory-1000": _MEMORY,
    "memory-10000": _MEMORY,
}
"""By the key of the measure."""
