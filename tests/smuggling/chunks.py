"""Where does a chunk end? RFC 9112 section 7.1."""

from __future__ import annotations

from tests.smuggling.case import HIDDEN, Case, Seen, carried, either, refused, request

_HELLO = Seen("POST", "/case", b"hello")


def _chunked(body: bytes) -> bytes:
    return request(b"Transfer-Encoding: chunked\r\n", body)


_ODD_SIZES = (
    ("hexadecimal-prefix", b"0x5", "a prefix that some parsers of numbers take"),
    ("plus", b"+5", "a sign"),
    ("minus", b"-5", "a sign"),
    ("underscore", b"0_5", "what some languages read as 5"),
    ("empty", b"", "no digit"),
    ("not-hexadecimal", b"5g", "a number as far as it goes"),
    ("space-before", b" 5", "white space before"),
    ("tab-before", b"\t5", "white space before"),
    ("vertical-tab", b"5\x0b", "no white space of HTTP"),
    ("nul", b"5\x00", "what a C string ends with"),
    ("two", b"5 5", "two numbers"),
    ("comma", b"5,5", "two numbers"),
    ("two-to-64", b"10000000000000005", "5 when it wraps at 64 bits"),
    ("two-to-63", b"8000000000000005", "negative when it wraps"),
    ("all-bits", b"FFFFFFFFFFFFFFFF", "-1 when it wraps"),
    ("too-many", b"F" * 17, "more than 64 bits"),
    ("endless", b"1" * 300, "more digits than any size has"),
    ("full-width", "５".encode(), "a digit of Unicode"),
    ("bare-cr", b"5\rx", "a bare CR in the line"),
)
_ODD_ENDS = (
    ("nothing-after", b"5\r\nhello0\r\n\r\n", "no CRLF after the data"),
    ("other-after", b"5\r\nhelloXX0\r\n\r\n", "two other bytes after the data"),
    ("bare-lf-after", b"5\r\nhello\n0\r\n\r\n", "a bare LF after the data"),
    ("bare-cr-after", b"5\r\nhello\r0\r\n\r\n", "a bare CR after the data"),
    ("more-data", b"5\r\nhello world\r\n0\r\n\r\n", "more data than was said"),
    ("less-data", b"7\r\nhello\r\n0\r\n\r\n", "less data than was said"),
    ("bare-lf-size", b"5\nhello\r\n0\r\n\r\n", "a bare LF after the size"),
    ("bare-cr-size", b"5\rhello\r\n0\r\n\r\n", "a bare CR after the size"),
    ("two-cr-size", b"5\r\r\nhello\r\n0\r\n\r\n", "one CR too many"),
    ("bare-lf-last", b"5\r\nhello\r\n0\n\n", "the last chunk with bare LFs"),
    ("bare-lf-end", b"5\r\nhello\r\n0\r\n\n", "the end with a bare LF"),
    ("bare-cr-end", b"5\r\nhello\r\n0\r\n\rX", "the end with a bare CR"),
    ("no-last", b"5\r\nhello\r\n", "no last chunk: the next request stands where a size belongs"),
    ("no-end", b"5\r\nhello\r\n0\r\n", "no empty line: the next request stands where a trailer belongs"),
    ("request-in-trailers", b"0\r\nGET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n", "a request line as trailer"),
    ("extension-bare-lf", b"5;a=b\nhello\r\n0\r\n\r\n", "an extension that ends with a bare LF"),
    ("extension-hides-lf", b"2;\nxx\r\n50\r\n\r\nGET /hidden", "a bare LF within the extension"),
    ("extension-bare-cr", b"5;a=\rb\r\nhello\r\n0\r\n\r\n", "a bare CR within the extension"),
    ("extension-nul", b"5;a=\x00\r\nhello\r\n0\r\n\r\n", "a NUL within the extension"),
    ("extension-endless", b"5;" + b"a" * 70_000 + b"\r\nhello\r\n0\r\n\r\n", "an extension without end"),
)
_ODD_TRAILERS = (
    ("bare-lf", b"X-A: b\n", "a bare LF"),
    ("folded", b"X-A: b\r\n c\r\n", "obs-fold"),
    ("no-colon", b"X-A\r\n", "no colon"),
    ("space-colon", b"X-A : b\r\n", "a space before the colon"),
    ("nul", b"X-A: \x00\r\n", "a NUL"),
    ("bare-cr", b"X-A: b\rX-B: c\r\n", "a bare CR"),
    ("empty-name", b": b\r\n", "no name"),
    ("many", b"X-A: b\r\n" * 5_000, "trailers without end"),
)
_FRAMING_TRAILERS = (
    ("content-length", b"Content-Length: 500\r\n"),
    ("transfer-encoding", b"Transfer-Encoding: chunked\r\n"),
    ("host", b"Host: b.test\r\n"),
    ("connection", b"Connection: close\r\n"),
    ("te", b"TE: chunked\r\n"),
    ("client-cert", b"X-Forwarded-Client-Cert: Hash=00\r\n"),
)


CASES: list[Case] = [
    *(
        refused(f"size-{name}", why, _chunked(size + b"\r\nhello\r\n0\r\n\r\n" + HIDDEN))
        for name, size, why in _ODD_SIZES
    ),
    *(refused(f"chunk-{name}", why, _chunked(body)) for name, body, why in _ODD_ENDS),
    *(
        refused(f"trailer-{name}", why, _chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n"))
        for name, line, why in _ODD_TRAILERS
    ),
    *(
        either(
            f"trailer-{name}",
            "what is for the head is not believed here",
            _chunked(b"5\r\nhello\r\n0\r\n" + line + b"\r\n"),
            _HELLO,
        )
        for name, line in _FRAMING_TRAILERS
    ),
    carried("chunk-plain", "the plain case", _chunked(b"5\r\nhello\r\n0\r\n\r\n"), _HELLO),
    carried("chunk-empty", "no data", _chunked(b"0\r\n\r\n"), Seen("POST", "/case")),
    carried("chunk-many", "several", _chunked(b"1\r\nh\r\n2\r\nel\r\n2\r\nlo\r\n0\r\n\r\n"), _HELLO),
    carried(
        "chunk-upper",
        "digits in upper case",
        _chunked(b"A\r\n0123456789\r\n0\r\n\r\n"),
        Seen("POST", "/case", b"0123456789"),
    ),
    carried(
        "chunk-lower",
        "digits in lower case",
        _chunked(b"a\r\n0123456789\r\n0\r\n\r\n"),
        Seen("POST", "/case", b"0123456789"),
    ),
    carried(
        "chunk-hidden",
        "data that looks like the end and a request",
        _chunked(b"%x\r\n0\r\n\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN) + 5, HIDDEN)),
        Seen("POST", "/case", b"0\r\n\r\n" + HIDDEN),
    ),
    # nginx resets requests with trailers over HTTP/2.
    either("trailer-plain", "a harmless trailer", _chunked(b"5\r\nhello\r\n0\r\nX-A: b\r\n\r\n"), _HELLO),
    either("size-zeros", "leading zeros", _chunked(b"0005\r\nhello\r\n0\r\n\r\n"), _HELLO),
    either("size-last-zeros", "a last chunk of many zeros", _chunked(b"5\r\nhello\r\n000\r\n\r\n"), _HELLO),
    either("size-space-after", "white space behind", _chunked(b"5 \r\nhello\r\n0\r\n\r\n"), _HELLO),
    either("extension-plain", "an extension", _chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), _HELLO),
    either("extension-empty", "no name", _chunked(b"5;\r\nhello\r\n0\r\n\r\n"), _HELLO),
    either("extension-quoted", "a quoted value", _chunked(b'5;a="b;c"\r\nhello\r\n0\r\n\r\n'), _HELLO),
    either("extension-last", "on the last chunk", _chunked(b"5\r\nhello\r\n0;a=b\r\n\r\n"), _HELLO),
]
