"""Permissions, against examples and against a slow reference that knows one reading of a request at a time."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.http.errors import BadRequest
from proxy.http.message import UNKNOWN_LENGTH, Headers, RequestHead, Version
from proxy.http.policy.asked import Asked
from proxy.http.policy.normalization import normalized
from proxy.http.policy.permissions import compile_permissions, described, problem
from proxy.http.policy.readings import readings
from proxy.rules import Action, HeaderMatch, Match, Normalization, Permission

ALLOW, DENY = Action.ALLOW, Action.DENY


def head(target: bytes = b"/", method: bytes = b"GET", headers: Headers | None = None) -> RequestHead:
    return RequestHead(method, target, b"api.example:8080", Version.HTTP_1_1, headers or [])


def matches(permission: Permission, request: RequestHead) -> bool:
    compiled = compile_permissions([permission])[0]
    assert compiled.unusable == ""
    return compiled.matches(Asked(request))


def both(permission: Permission, request: RequestHead) -> bool:
    """For a request with one reading, which allowing and denying treat alike."""
    allows, denies = (matches(_as(permission, action), request) for action in (ALLOW, DENY))
    assert allows is denies
    return allows


def _as(permission: Permission, action: Action) -> Permission:
    return Permission(
        action, permission.path, permission.path_value, permission.methods, permission.headers, permission.tokens
    )


# --- paths and methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "value", "yes", "no"),
    [
        (Match.EXACT, "/a", [b"/a", b"/a?b=/c"], [b"/", b"/a/", b"/ab", b"/A"]),
        (Match.PREFIX, "/a", [b"/a", b"/ab", b"/a/b?c"], [b"/", b"/b/a", b"/A"]),
        (Match.PREFIX, "/", [b"/", b"/x"], [b"*"]),
        (Match.REGEX, "/v[0-9]+/.*", [b"/v1/", b"/v12/x?y"], [b"/v1", b"/x/v1/y", b"/v/"]),
        (Match.REGEX, "/a|/b", [b"/a", b"/b"], [b"/ab", b"/a/b"]),
        (Match.REGEX, "(?i)/a", [b"/a", b"/A"], [b"/b"]),
        (Match.EXACT, "/caf\u00e9 %7ex", [b"/caf%C3%A9%20~x"], [b"/caf"]),
        (Match.EXACT, "/a%3ab", [b"/a%3Ab"], [b"/a"]),
    ],
)
def test_paths(match: Match, value: str, yes: list[bytes], no: list[bytes]) -> None:
    for action in Action:
        permission = Permission(action, match, value)
        assert [target for target in yes + no if matches(permission, head(target))] == yes


def test_methods_have_case_and_no_method_is_any() -> None:
    permission = Permission(ALLOW, methods=("GET", "HEAD"))
    assert both(permission, head(method=b"GET"))
    assert both(permission, head(method=b"HEAD"))
    assert not both(permission, head(method=b"get"))
    assert not both(permission, head(method=b"POST"))
    assert both(Permission(ALLOW), head(method=b"WHATEVER"))


BYPASSES = [
    b"//secret", b"/%73ecret", b"/a/../secret", b"/a/%2e%2e/secret", b"/a/%2E%2E/secret", b"/secret;x", b"/\\secret",
    b"/%2Fsecret", b"/%2fsecret", b"/%5Csecret", b"/./secret", b"/%2573ecret", b"/a/%252e%252e/secret", b"/secret%3bx",
    b"/secret?x=y", b"/;x/secret", b"/%25%37%33ecret", b"/secre%74",
]  # fmt: skip


REFUSED = [
    b"/a/..;/secret", b"/a%2F..%2Fsecret", b"/a%2f%2e%2e%2fsecret", b"/a/..%3Bx/secret", b"/a/..%5csecret",
    b"/.;x/secret", b"/a%2F..",
]  # fmt: skip
"""No one form: a dot segment that some would see and others not."""
SETTINGS = [Normalization(), Normalization(dot_segments=False, merge_slashes=False)]


@pytest.mark.parametrize("target", BYPASSES)
@pytest.mark.parametrize("match", [Match.EXACT, Match.PREFIX, Match.REGEX])
def test_no_way_to_write_a_path_passes_a_denial(target: bytes, match: Match) -> None:
    assert matches(Permission(DENY, match, "/secret"), head(normalized(target, SETTINGS[0])))


@pytest.mark.parametrize("target", REFUSED)
def test_a_hidden_dot_segment_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest, match="hidden"):
        normalized(target, Normalization())


@pytest.mark.parametrize("target", BYPASSES + REFUSED[:-1])
@pytest.mark.parametrize("match", [Match.EXACT, Match.PREFIX, Match.REGEX])
def test_whoever_turns_normalization_off_still_denies(target: bytes, match: Match) -> None:
    assert matches(Permission(DENY, match, "/secret"), head(normalized(target, SETTINGS[1])))


@pytest.mark.parametrize("target", BYPASSES + REFUSED)
@pytest.mark.parametrize("how", SETTINGS)
def test_no_way_to_write_a_path_gets_it_allowed_as_another(target: bytes, how: Normalization) -> None:
    try:
        request = head(normalized(target, how))
    except BadRequest:
        return
    for value in ("/a", "/a/", "/%", "/."):
        assert not matches(Permission(ALLOW, Match.PREFIX, value), request)
    assert not matches(Permission(ALLOW, Match.REGEX, "/[a.].*"), request)


@pytest.mark.parametrize(
    ("match", "value", "target"),
    [
        (Match.EXACT, "/@scope%2Fname", b"/@scope%2Fname"),
        (Match.EXACT, "/@scope%2fname", b"/@scope%2Fname"),
        (Match.PREFIX, "/@scope", b"/@scope%2Fname"),
        (Match.PREFIX, "/@scope%2F", b"/@scope%2Fname"),
        (Match.EXACT, "/items;v=2", b"/items;v=2"),
        (Match.PREFIX, "/items;v=", b"/items;v=2"),
        (Match.PREFIX, "/items", b"/items;v=2/x"),
        (Match.REGEX, "/items;v=[0-9]", b"/items;v=2"),
        (Match.REGEX, "/group%2F[a-z]+", b"/group%2Fproject"),
        (Match.REGEX, "/files/.*", b"/files/%C3%A9%FF%20%0A;v=1"),
        (Match.PREFIX, "/v1/items:", b"/v1/items:delete"),
        (Match.PREFIX, "/.well", b"/.well-known/x"),
        (Match.PREFIX, "/a/.", b"/a/.b"),
    ],
)
def test_what_is_written_in_a_permission_is_allowed(match: Match, value: str, target: bytes) -> None:
    assert matches(Permission(ALLOW, match, value), head(normalized(target, Normalization())))


def test_a_denial_is_not_wider_than_what_is_written() -> None:
    assert not matches(Permission(DENY, Match.PREFIX, "/items;v=2"), head(b"/items;v=3"))
    assert not matches(Permission(DENY, Match.PREFIX, "/items;v=2"), head(b"/items"))
    assert not matches(Permission(DENY, Match.EXACT, "/a%2Fb"), head(b"/a"))
    assert not matches(Permission(DENY, Match.EXACT, "/a"), head(b"/a%2Fb"))


def test_a_parameter_is_dropped_before_or_after_decoding() -> None:
    assert matches(Permission(DENY, Match.EXACT, "/a;b"), head(b"/a%3Bb;x"))
    assert matches(Permission(DENY, Match.EXACT, "/a"), head(b"/a%3Bb"))
    assert matches(Permission(DENY, Match.PREFIX, "/secret"), head(b"//secret;/%2e./"))
    assert matches(Permission(DENY, Match.EXACT, "/secret"), head(b"/a%2Fb/..//secret"))


def test_a_colon_may_be_written_escaped() -> None:
    request = head(b"/v1/items%3Adelete")
    assert matches(Permission(DENY, Match.EXACT, "/v1/items:delete"), request)
    assert not matches(Permission(ALLOW, Match.REGEX, "/v1/[^:]+"), request)


# --- headers -----------------------------------------------------------------------------------------------------


def one(match: Match, value: str = "", *, ignore_case: bool = False, invert: bool = False) -> Permission:
    return Permission(ALLOW, headers=(HeaderMatch("x-role", match, value, ignore_case, invert),))


@pytest.mark.parametrize(
    ("permission", "yes", "no"),
    [
        (one(Match.EXACT, "admin"), [b"admin"], [b"Admin", b"", b"administrator"]),
        (one(Match.EXACT, "admin", ignore_case=True), [b"admin", b"ADMIN"], [b"administrator"]),
        (one(Match.PREFIX, "ad"), [b"admin", b"ad"], [b"Admin", b"bad"]),
        (one(Match.PREFIX, "AD", ignore_case=True), [b"admin", b"Ad"], [b"bad"]),
        (one(Match.SUFFIX, "in"), [b"admin", b"in"], [b"IN", b"inn"]),
        (one(Match.SUFFIX, "IN", ignore_case=True), [b"admin", b"iN"], [b"inn"]),
        (one(Match.CONTAINS, "mi"), [b"admin", b"mi"], [b"ADMIN", b"m-i"]),
        (one(Match.CONTAINS, "MI", ignore_case=True), [b"admin", b"ADMIN"], [b"m-i"]),
        (one(Match.REGEX, "ad.*"), [b"admin", b"ad"], [b"bad", b"AD"]),
        (one(Match.REGEX, "ad.*", ignore_case=True), [b"admin", b"AD"], [b"bad"]),
        (one(Match.REGEX, "(?i)ad|x"), [b"AD", b"X"], [b"adx"]),
        (one(Match.PRESENT), [b"", b"x"], []),
        (one(Match.PRESENT, invert=True), [], [b"", b"x"]),
        (one(Match.EXACT, "admin", invert=True), [b"user", b""], [b"admin"]),
        (one(Match.REGEX, "a.*", invert=True), [b"user", b""], [b"admin"]),
    ],
)
def test_values_of_headers(permission: Permission, yes: list[bytes], no: list[bytes]) -> None:
    assert [value for value in yes + no if both(permission, head(headers=[(b"x-role", value)]))] == yes


def test_a_header_that_is_not_there() -> None:
    assert both(one(Match.PRESENT, invert=True), head())
    for match in (Match.EXACT, Match.PREFIX, Match.SUFFIX, Match.CONTAINS, Match.REGEX, Match.PRESENT):
        assert not both(one(match, "x"), head())
    inverted = one(Match.EXACT, "admin", invert=True)
    assert not matches(inverted, head())
    assert matches(_as(inverted, DENY), head()), "deny whoever is not admin: also who does not say what he is"


def test_a_repeated_header_helps_nobody() -> None:
    twice = head(headers=[(b"x-role", b"user"), (b"x-role", b"admin")])
    permission = one(Match.EXACT, "admin")
    assert not matches(permission, twice)
    assert matches(_as(permission, DENY), twice)
    inverted = one(Match.EXACT, "admin", invert=True)
    assert not matches(inverted, twice)
    assert matches(_as(inverted, DENY), twice)
    joined = one(Match.REGEX, "user, ?admin")
    assert matches(_as(joined, DENY), twice)
    same = head(headers=[(b"x-role", b"admin"), (b"x-role", b"admin")])
    assert matches(permission, same)


def test_bytes_that_are_no_ascii_are_read_as_utf8_and_as_latin_1() -> None:
    latin, utf8 = head(headers=[(b"x-role", b"bad\xe9")]), head(headers=[(b"x-role", b"bad\xc3\xa9")])
    for request in (latin, utf8):
        assert both(one(Match.REGEX, "bad.*"), request)
        assert not both(one(Match.REGEX, "bad.*", invert=True), request)
    for pattern in ("bad.", "bad.."):
        permission, inverted = one(Match.REGEX, pattern), one(Match.REGEX, pattern, invert=True)
        assert not matches(permission, utf8)
        assert matches(_as(permission, DENY), utf8)
        assert not matches(inverted, utf8)
        assert matches(_as(inverted, DENY), utf8)


def test_cookies_in_pieces_are_one_header() -> None:
    pieces = head(headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])
    whole = Permission(ALLOW, headers=(HeaderMatch("cookie", Match.EXACT, "a=1; b=2"),))
    assert both(whole, pieces)
    assert both(Permission(ALLOW, headers=(HeaderMatch("cookie", Match.CONTAINS, "b=2"),)), pieces)
    piece = Permission(ALLOW, headers=(HeaderMatch("cookie", Match.EXACT, "a=1"),))
    assert not matches(piece, pieces)
    assert matches(_as(piece, DENY), pieces)


def test_all_headers_have_to_match() -> None:
    permission = Permission(
        ALLOW, headers=(HeaderMatch("a", Match.EXACT, "1"), HeaderMatch("b", Match.PRESENT)), methods=("GET",)
    )
    assert both(permission, head(headers=[(b"a", b"1"), (b"b", b"")]))
    assert not both(permission, head(headers=[(b"a", b"1")]))
    assert not both(permission, head(headers=[(b"b", b"1")]))
    assert not both(permission, head(method=b"PUT", headers=[(b"a", b"1"), (b"b", b"")]))


def test_names_that_a_request_keeps_elsewhere() -> None:
    request = replace(
        head(b"/p?q", b"POST"),
        length=5, has_length=True, upgrade=b"websocket", expects_continue=True, trailers_wanted=True,
    )  # fmt: skip
    known = {
        ":method": "POST", ":path": "/p?q", ":authority": "api.example:8080", "Host": "api.example:8080",
        ":scheme": "https", "content-length": "5", "upgrade": "websocket", "connection": "upgrade", "te": "trailers",
        "expect": "100-continue",
    }  # fmt: skip
    for name, value in known.items():
        assert both(Permission(ALLOW, headers=(HeaderMatch(name, Match.EXACT, value),)), request), name
    for name in ("content-length", "upgrade", "connection", "te", "expect"):
        absent = Permission(ALLOW, headers=(HeaderMatch(name, Match.PRESENT, invert=True),))
        assert both(absent, replace(head(), length=UNKNOWN_LENGTH)), name


@pytest.mark.parametrize("name", ["host", ":authority"])
def test_a_host_has_one_name_whatever_its_letters_and_its_port(name: str) -> None:
    named = HeaderMatch(name, Match.EXACT, "admin.example")
    denies, allows = Permission(DENY, headers=(named,)), Permission(ALLOW, headers=(named,))
    inverted = Permission(ALLOW, headers=(HeaderMatch(name, Match.EXACT, "admin.example", invert=True),))
    for authority in (
        b"Admin.EXAMPLE",
        b"admin.example:8443",
        b"admin.example.",
        b"ADMIN.example.:443",
        b"admin.example:",
    ):
        request = replace(head(), authority=authority)
        assert matches(denies, request)
        assert not matches(allows, request)
        assert not matches(inverted, request)
    same, other = (replace(head(), authority=authority) for authority in (b"admin.example", b"xadmin.example"))
    assert both(allows, same)
    assert not both(allows, other)
    assert both(inverted, other)
    with_port = Permission(ALLOW, headers=(HeaderMatch(name, Match.EXACT, "Api.Example:8443"),))
    assert both(with_port, replace(head(), authority=b"Api.Example:8443"))


def test_the_target_as_a_header_has_its_readings() -> None:
    header = HeaderMatch(":path", Match.PREFIX, "/secret")
    assert matches(Permission(DENY, headers=(header,)), head(b"/%2Fsecret?x"))
    assert matches(Permission(ALLOW, headers=(header,)), head(b"/secret?x=%2F"))
    assert not matches(Permission(ALLOW, headers=(HeaderMatch(":path", Match.PREFIX, "/%"),)), head(b"/%2Fsecret"))
    exact = HeaderMatch(":path", Match.EXACT, "/secret?x")
    assert matches(Permission(DENY, headers=(exact,)), head(b"/secret;y?x"))


# --- what cannot be evaluated ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permission", "said"),
    [
        (Permission(ALLOW, Match.REGEX, "/("), "PathRegex '/('"),
        (Permission(ALLOW, Match.REGEX, "/(?=x)"), "RE2"),
        (Permission(ALLOW, Match.REGEX, "((a{100}){100}){100}"), "RE2"),
        (Permission(ALLOW, Match.REGEX, "((((a{30}){30}){30}){30})"), "RE2"),
        (Permission(ALLOW, Match.REGEX, "[a-f]{1000}" * 400), "too large"),
        (Permission(ALLOW, Match.SUFFIX, "x"), "path"),
        (one(Match.REGEX, "["), "'x-role'"),
        (one(Match.ANY), "'x-role'"),
        (Permission(ALLOW, unusable="a field of a newer Consul"), "newer Consul"),
    ],
)
def test_what_cannot_be_evaluated_is_unusable_and_says_why(permission: Permission, said: str) -> None:
    assert said in problem(permission)
    assert compile_permissions([permission])[0].tests == ()


def test_a_permission_is_named_in_a_few_words() -> None:
    permission = Permission(DENY, Match.PREFIX, "/admin", ("GET", "HEAD"), (HeaderMatch("x-role", Match.PRESENT),))
    assert compile_permissions([Permission(ALLOW), permission])[1].name == "permission 2 (GET,HEAD /admin*, x-role)"
    assert described(Permission(ALLOW)) == "any path"
    assert described(Permission(ALLOW, Match.REGEX, "/.*")) == "~/.*"


# --- the reference -----------------------------------------------------------------------------------------------

_words = st.text("ab", max_size=3)
_header_matches = st.builds(
    HeaderMatch,
    name=st.sampled_from(["h", "H", "k"]),
    match=st.sampled_from([match for match in Match if match not in (Match.ANY, Match.REGEX)]),
    value=_words.map(lambda word: word.replace("b", "B")) | _words,
    ignore_case=st.booleans(),
    invert=st.booleans(),
) | st.builds(
    HeaderMatch,
    name=st.sampled_from(["h", "k"]),
    match=st.just(Match.REGEX),
    value=st.sampled_from(["a*", "a|b", ".*b", "[^a]+", "a.b"]),
    invert=st.booleans(),
)
_path_values = st.sampled_from(["/", "/a", "/a/", "/a/a", "/aa", "/a."])
"""With one reading; those that have more are in the examples."""
_permissions = st.builds(
    Permission,
    action=st.sampled_from(Action),
    path=st.sampled_from([Match.ANY, Match.EXACT, Match.PREFIX]),
    path_value=_path_values,
    methods=st.sampled_from([(), ("GET",), ("GET", "PUT")]),
    headers=st.lists(_header_matches, max_size=2).map(tuple),
)
_heads = st.builds(
    head,
    target=st.builds(
        lambda path, query: b"/" + path.encode() + query,
        st.text("/a;.", max_size=5) | st.just("%2Fa") | st.just("a%3Bx"),
        st.sampled_from([b"", b"?", b"?/a"]),
    ),
    method=st.sampled_from([b"GET", b"PUT", b"POST"]),
    headers=st.lists(st.tuples(st.sampled_from([b"h", b"k"]), _words.map(str.encode)), max_size=3),
)


def _simple(permission: Permission, method: str, path: str, headers: dict[str, str]) -> bool:
    """Consul's rule for a request that has one reading; ``headers`` has each name once."""
    if permission.methods and method not in permission.methods:
        return False
    value = permission.path_value
    if permission.path is Match.EXACT and path != value:
        return False
    if permission.path is Match.PREFIX and not path.startswith(value):
        return False
    return all(_simple_header(header, headers.get(header.name.lower())) for header in permission.headers)


def _simple_header(header: HeaderMatch, found: str | None) -> bool:
    if header.match is Match.PRESENT:
        return (found is not None) != header.invert
    if found is None:
        return False
    wanted = header.value
    if header.ignore_case:
        found, wanted = found.lower(), wanted.lower()
    held = {
        Match.EXACT: found == wanted,
        Match.PREFIX: found[: len(wanted)] == wanted,
        Match.SUFFIX: not wanted or found[-len(wanted) :] == wanted,
        Match.CONTAINS: wanted in found,
        Match.REGEX: header.match is Match.REGEX and re.fullmatch(wanted, found) is not None,
    }[header.match]
    return held != header.invert


@given(_permissions, _heads)
def test_where_there_is_one_reading_it_is_the_rule_of_consul(permission: Permission, request: RequestHead) -> None:
    path = request.target.partition(b"?")[0]
    names = [name for name, _ in request.headers]
    absent_and_inverted = any(
        header.invert and header.match is not Match.PRESENT and header.name.lower().encode() not in names
        for header in permission.headers
    )
    assume(len(readings(path)) == 1 and len(set(names)) == len(names) and not absent_and_inverted)
    headers = {name.decode(): value.decode() for name, value in request.headers}
    expected = _simple(permission, request.method.decode(), path.decode(), headers)
    assert matches(permission, request) is expected


@given(_permissions, _heads)
def test_no_reading_is_allowed_that_the_rule_does_not_allow(permission: Permission, request: RequestHead) -> None:
    """What an allowance lets pass is allowed in each reading by itself; what a denial leaves is denied in none."""
    try:
        request.target = normalized(request.target, Normalization())
    except BadRequest:
        return
    found = matches(permission, request)
    paths = readings(request.target.partition(b"?")[0])
    names = sorted({name for name, _ in request.headers})
    taken = [[value for key, value in request.headers if key == name] for name in names]
    each = [
        _simple(
            permission,
            request.method.decode(),
            path.decode(),
            {name.decode(): value.decode() for name, value in zip(names, values, strict=True)},
        )
        for path in paths
        for values in itertools.product(*taken)
    ]
    if permission.action is ALLOW:
        assert not found or all(each)
    else:
        assert found or not any(each)
