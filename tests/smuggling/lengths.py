"""How long is the body? ``Content-Length`` and ``Transfer-Encoding``, RFC 9112 section 6."""

from __future__ import annotations

from tests.smuggling.case import HIDDEN, HOST, Case, Seen, carried, either, refused, request, unfinished

_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
_EMPTY_THEN_HIDDEN = b"0\r\n\r\n" + HIDDEN
_HELLO = Seen("POST", "/case", b"hello")


def _both() -> list[Case]:
    length, chunked = b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"
    whole = len(_EMPTY_THEN_HIDDEN)
    return [
        refused(
            "cl-te", "a request in what CL takes for a body", request(length % whole + chunked, _EMPTY_THEN_HIDDEN)
        ),
        refused("te-cl", "the other order", request(chunked + length % whole, _EMPTY_THEN_HIDDEN)),
        refused(
            "te-short-cl", "CL ends within the chunks", request(length % 4 + chunked, b"5c\r\n" + HIDDEN + b"0\r\n\r\n")
        ),
        refused("te-zero-cl", "one says that there is no body", request(length % 0 + chunked, _CHUNKS)),
        refused("te-equal-cl", "both say the same", request(length % len(_CHUNKS) + chunked, _CHUNKS)),
        refused("te-two-cl", "three framings", request(length % 4 + chunked + length % 5, _CHUNKS)),
        refused(
            "te-http-1.0",
            "HTTP/1.0 has no chunks (RFC 9112 section 6.1)",
            b"POST /case HTTP/1.0\r\nHost: %s\r\n%s\r\n%s" % (HOST, chunked, _EMPTY_THEN_HIDDEN),
        ),
    ]


_ODD_CODINGS = (
    ("identity", b"identity", "was taken out of HTTP"),
    ("chunked-identity", b"chunked, identity", "chunked is not last"),
    ("identity-chunked", b"identity, chunked", "two codings, one of them unknown"),
    ("xchunked", b"xchunked", "ends with the word"),
    ("chunkedx", b"chunkedx", "begins with the word"),
    ("chunked-quality", b"chunked;q=1", "a parameter"),
    ("chunked-quoted", b'"chunked"', "a quoted string"),
    ("chunked-apostrophes", b"'chunked'", "not even a quoted string"),
    ("chunked-twice", b"chunked, chunked", "must not be applied twice"),
    ("chunked-space-word", b"chunked x", "two words"),
    ("gzip-chunked", b"gzip, chunked", "a coding that nobody here decodes"),
    ("gzip", b"gzip", "without chunked the end is unknown"),
    ("vertical-tab-before", b"\x0bchunked", "a vertical tab is no white space of HTTP"),
    ("vertical-tab-after", b"chunked\x0b", "the same, behind"),
    ("form-feed", b"\x0cchunked", "a form feed is none either"),
    ("nul-after", b"chunked\x00", "what a C string ends with"),
    ("no-break-space", b"\xa0chunked", "white space of Latin-1"),
    ("bare-cr", b"x\rTransfer-Encoding: chunked", "a bare CR, which some take for the end of a line"),
    ("bare-lf", b"x\nTransfer-Encoding: chunked", "a bare LF, which many take for the end of a line"),
    ("empty", b"", "no coding at all"),
)


def _codings() -> list[Case]:
    cases = [
        refused(f"te-{name}", why, request(b"Transfer-Encoding: %s\r\n" % value, _EMPTY_THEN_HIDDEN))
        for name, value, why in _ODD_CODINGS
    ]
    line = b"Transfer-Encoding: "
    cases += [
        refused("te-line-twice", "two lines", request(line + b"chunked\r\n" + line + b"chunked\r\n", _CHUNKS)),
        refused(
            "te-then-identity", "the last line wins?", request(line + b"chunked\r\n" + line + b"identity\r\n", _CHUNKS)
        ),
        refused(
            "te-identity-then", "the first line wins?", request(line + b"identity\r\n" + line + b"chunked\r\n", _CHUNKS)
        ),
        refused("te-space-colon", "a space before the colon", request(b"Transfer-Encoding : chunked\r\n", _CHUNKS)),
        refused("te-tab-colon", "a tab before the colon", request(b"Transfer-Encoding\t: chunked\r\n", _CHUNKS)),
        refused("te-folded", "obs-fold", request(b"Transfer-Encoding:\r\n chunked\r\n", _CHUNKS)),
        refused(
            "te-in-a-fold", "in the fold of another", request(b"X-A: b\r\n Transfer-Encoding: chunked\r\n", _CHUNKS)
        ),
        refused("te-nul-name", "a NUL in the name", request(b"Transfer-Encoding\x00: chunked\r\n", _CHUNKS)),
        either(
            "te-underscore-name",
            "a name that CGI cannot tell from the other: there is no body, and what follows is no request",
            request(b"Transfer_Encoding: chunked\r\n", _CHUNKS),
            Seen("POST", "/case"),
            marker_served=False,
        ),
        carried("te-upper", "codings have no case", request(b"Transfer-Encoding: CHUNKED\r\n", _CHUNKS), _HELLO),
        carried("te-mixed-name", "names have no case", request(b"tRANSFER-eNCODING: chunked\r\n", _CHUNKS), _HELLO),
        carried("te-spaces", "optional white space", request(b"Transfer-Encoding:   chunked  \r\n", _CHUNKS), _HELLO),
        either(
            "te-tabs", "tabs are optional white space", request(b"Transfer-Encoding:\tchunked\t\r\n", _CHUNKS), _HELLO
        ),
        either("te-no-space", "none", request(b"Transfer-Encoding:chunked\r\n", _CHUNKS), _HELLO),
        either("te-comma-before", "an empty element", request(b"Transfer-Encoding: ,chunked\r\n", _CHUNKS), _HELLO),
        either("te-comma-after", "an empty element", request(b"Transfer-Encoding: chunked,\r\n", _CHUNKS), _HELLO),
    ]
    return cases


_ODD_LENGTHS = (
    ("plus", b"+5", "a sign"),
    ("minus", b"-5", "negative"),
    ("minus-zero", b"-0", "a sign before nothing"),
    ("hexadecimal", b"0x5", "the prefix of another base"),
    ("octal-prefix", b"0o5", "the prefix of another base"),
    ("underscore", b"1_0", "what some languages read as 10"),
    ("fraction", b"5.0", "no integer"),
    ("exponent", b"5e0", "no integer"),
    ("list", b"5, 5", "a list, if of equals"),
    ("list-differs", b"5, 50", "a list of two"),
    ("semicolon", b"5;5", "a parameter"),
    ("two-numbers", b"5 0", "the first, the last, or 50?"),
    ("word", b"five", "no number"),
    ("word-after", b"5a", "a number as far as it goes"),
    ("empty", b"", "nothing, which some take for zero"),
    ("arabic-digit", "٥".encode(), "a digit of Unicode"),
    ("superscript", b"\xb2", "a digit of Latin-1"),
    ("vertical-tab", b"\x0b5", "no white space of HTTP"),
    ("form-feed", b"5\x0c", "no white space of HTTP"),
    ("nul", b"5\x00", "what a C string ends with"),
    ("quoted", b'"5"', "a quoted string"),
    ("two-to-64", b"18446744073709551621", "5 when it wraps at 64 bits"),
    ("two-to-63", b"9223372036854775813", "negative when it wraps"),
    ("two-to-32", b"4294967301\x00", "5 when it wraps at 32 bits, and a NUL"),
    ("endless", b"9" * 400, "more digits than any number has"),
    ("bare-cr", b"5\rX-A: b", "a bare CR"),
    ("bare-lf", b"5\nContent-Length: 0", "a bare LF"),
)


def _numbers() -> list[Case]:
    line, body = b"Content-Length: %s\r\n", b"hello"
    cases = [refused(f"cl-{name}", why, request(line % value, body + HIDDEN)) for name, value, why in _ODD_LENGTHS]
    cases += [
        refused("cl-twice-differs", "two lengths", request(line % b"5" + line % b"0", body + HIDDEN)),
        refused("cl-twice-zero", "two lengths", request(line % b"0" + line % b"5", body + HIDDEN)),
        refused("cl-twice-equal", "two lines, if equal", request(line % b"5" + line % b"5", body)),
        refused("cl-twice-sign", "equal but for a sign", request(line % b"5" + line % b"+5", body)),
        refused("cl-space-colon", "a space before the colon", request(b"Content-Length : 5\r\n", body + HIDDEN)),
        refused("cl-folded", "obs-fold", request(b"Content-Length:\r\n 5\r\n", body + HIDDEN)),
        refused("cl-folded-digits", "a number in two lines", request(b"Content-Length: 5\r\n 0\r\n", body + HIDDEN)),
        refused("cl-nul-name", "a NUL in the name", request(b"Content-Length\x00: 5\r\n", body + HIDDEN)),
        refused("cl-tab-line", "the line begins with a tab", request(b"\tContent-Length: 5\r\n", body + HIDDEN)),
        either(
            "cl-underscore-name",
            "not a length: there is no body, and what follows is no request",
            request(b"Content_Length: 5\r\n", body + HIDDEN),
            Seen("POST", "/case"),
            marker_served=False,
        ),
        carried("cl-plain", "the plain case", request(line % b"5", body), _HELLO),
        carried(
            "cl-hidden",
            "a body that looks like a request",
            request(line % b"%d" % len(HIDDEN), HIDDEN),
            Seen("POST", "/case", HIDDEN),
        ),
        carried("cl-zero", "an explicit nothing", request(line % b"0"), Seen("POST", "/case")),
        carried("cl-none", "no framing is no body", request(), Seen("POST", "/case")),
        carried("cl-name-case", "names have no case", request(b"cOnTeNt-lEnGtH: 5\r\n", body), _HELLO),
        either("cl-zeros", "leading zeros", request(line % b"0000000005", body), _HELLO),
        either("cl-spaces", "optional white space", request(b"Content-Length:  5  \r\n", body), _HELLO),
        either("cl-tabs", "optional white space", request(b"Content-Length:\t5\t\r\n", body), _HELLO),
        either("cl-no-space", "none", request(b"Content-Length:5\r\n", body), _HELLO),
        unfinished("cl-too-long", "the marker is part of the body", request(line % b"5000", body)),
        carried("get-body", "GET may have one", request(line % b"5", body, method=b"GET"), Seen("GET", "/case", body)),
        carried(
            "get-hidden",
            "the body of a GET is not the next request",
            request(line % b"%d" % len(HIDDEN), HIDDEN, method=b"GET"),
            Seen("GET", "/case", HIDDEN),
        ),
        carried(
            "get-chunks",
            "GET with chunks",
            request(b"Transfer-Encoding: chunked\r\n", _CHUNKS, method=b"GET"),
            Seen("GET", "/case", body),
        ),
        carried(
            "delete-hidden",
            "DELETE with a body",
            request(line % b"%d" % len(HIDDEN), HIDDEN, method=b"DELETE"),
            Seen("DELETE", "/case", HIDDEN),
        ),
        carried(
            "head-body",
            "HEAD with a body",
            request(line % b"%d" % len(HIDDEN), HIDDEN, method=b"HEAD"),
            Seen("HEAD", "/case", HIDDEN),
        ),
        carried(
            "options-body",
            "OPTIONS with a body",
            request(line % b"5", body, method=b"OPTIONS"),
            Seen("OPTIONS", "/case", body),
        ),
    ]
    return cases


CASES = [*_both(), *_codings(), *_numbers()]
