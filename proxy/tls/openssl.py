"""The binding to OpenSSL: the library as the sessions call it, memory shared with it, and its errors as text.

``pyOpenSSL`` brings the binding and builds the contexts. Sessions use the binding directly, for what its ``Connection``
cannot do: answer an unknown server name with the alert of RFC 6066 section 3, and move bulk data without one
allocation and copy per TLS record.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

lib: Any = SSL._lib  # type: ignore[attr-defined]
ffi: Any = SSL._ffi  # type: ignore[attr-defined]


class Buffer:
    """Memory that OpenSSL and the socket calls share without copying."""

    __slots__ = ("pointer", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.pointer = ffi.new("char[]", size)
        self.view = memoryview(ffi.buffer(self.pointer))


def der_of(certificate: Any) -> bytes:
    memory = lib.BIO_new(lib.BIO_s_mem())
    pointer = ffi.new("char **")
    try:
        lib.i2d_X509_bio(memory, certificate)
        length = lib.BIO_get_mem_data(memory, pointer)
        return bytes(ffi.buffer(pointer[0], length))
    finally:
        lib.BIO_free(memory)


def drain_errors() -> str:
    """OpenSSL's error queue as text, oldest first, and leave it empty for the next call on this thread."""
    reasons = []
    while code := lib.ERR_get_error():
        text = lib.ERR_reason_error_string(code)
        reasons.append(ffi.string(text).decode() if text != ffi.NULL else f"error {code:#x}")
    return "; ".join(dict.fromkeys(reasons))
