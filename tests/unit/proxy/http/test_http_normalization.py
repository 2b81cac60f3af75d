"""One form of a path: what is decided about is what is forwarded."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.errors import BadRequest
from proxy.http.policy.normalization import Elsewhere, acceptable, normalized
from proxy.rules import EscapedSlashes, Normalization, Underscores

SECURE = Normalization()
BY_HAND = Normalization(dot_segments=False, merge_slashes=False)


@pytest.mark.parametrize(
    ("target", "form"),
    [
        (b"/", b"/"),
        (b"*", b"*"),
        (b"/a/b?x=//../%2e&y=%zz", b"/a/b?x=//../%2e&y=%zz"),
        (b"//secret", b"/secret"),
        (b"/%73ecret", b"/secret"),
        (b"/%73%65%63%72%65%74", b"/secret"),
        (b"/a/../secret", b"/secret"),
        (b"/a/%2e%2e/secret", b"/secret"),
        (b"/a/%2E%2e/secret", b"/secret"),
        (b"/a/.%2E/secret", b"/secret"),
        (b"/../../secret", b"/secret"),
        (b"/./secret", b"/secret"),
        (b"/%2e/secret", b"/secret"),
        (b"/\\secret", b"/secret"),
        (b"/a\\..\\secret", b"/secret"),
        (b"/a//../secret", b"/a/secret"),
        (b"/secret/.", b"/secret/"),
        (b"/secret/x/..", b"/secret/"),
        (b"/secret/..", b"/"),
        (b"/secret;x", b"/secret;x"),
        (b"/%2fsecret", b"/%2Fsecret"),
        (b"/%5csecret", b"/%5Csecret"),
        (b"/a%3a%c3%a9%7E", b"/a%3A%C3%A9~"),
        (b"/caf\xc3\xa9", b"/caf%C3%A9"),
        (b"/%252e%252e/x", b"/%252e%252e/x"),
        (b"/...", b"/..."),
        (b"/.well-known/..hidden", b"/.well-known/..hidden"),
        (b"/a|b{c}", b"/a|b{c}"),
    ],
)
def test_a_path_has_one_form(target: bytes, form: bytes) -> None:
    assert normalized(target, SECURE) == form


@pytest.mark.parametrize(
    "target",
    [
        b"",
        b"secret",
        b"\\secret",
        b"http://host/secret",
        b"/a b",
        b"/a\r\nX: y",
        b"/a\x00",
        b"/a\x7f",
        b"/a#b",
        b"/a?b#c",
        b"/a?b c",
        b"/%",
        b"/%2",
        b"/%g1",
        b"/%%32%65",
        b"/a%00b",
        b"/%u0073ecret",
    ],
)
def test_what_nobody_can_read_in_one_way_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        normalized(target, SECURE)
    assert refused.value.status == 400


def test_escaped_slashes_are_treated_as_the_mesh_says() -> None:
    kept = normalized(b"/a%2f..b%5csecret?q=%2f", Normalization(escaped_slashes=EscapedSlashes.KEEP))
    assert kept == b"/a%2F..b%5Csecret?q=%2f"
    target = b"/a%2f..%5Csecret?q=%2F"
    assert normalized(target, Normalization(escaped_slashes=EscapedSlashes.UNESCAPE)) == b"/secret?q=%2F"
    with pytest.raises(BadRequest, match="escaped slash"):
        normalized(target, Normalization(escaped_slashes=EscapedSlashes.REJECT))
    with pytest.raises(Elsewhere) as moved:
        normalized(target, Normalization(escaped_slashes=EscapedSlashes.REDIRECT))
    assert moved.value.target == b"/secret?q=%2F"
    for action in EscapedSlashes:
        assert normalized(b"/a/%2e%2e/b?q=%2F", Normalization(escaped_slashes=action)) == b"/b?q=%2F"


@pytest.mark.parametrize(
    "target", [b"//evil.example%2F", b"/%2Fevil.example", b"/%5Cevil.example", b"/%5C%2f/evil.example"]
)
def test_a_redirect_stays_at_this_host(target: bytes) -> None:
    for how in (BY_HAND, SECURE):
        with pytest.raises(Elsewhere) as moved:
            normalized(target, msgspec.structs.replace(how, escaped_slashes=EscapedSlashes.REDIRECT))
        assert re.match(rb"/evil", moved.value.target)


def test_normalization_can_be_turned_off() -> None:
    assert normalized(b"/a/../%73//x\\y%", BY_HAND) == b"/a/../%73//x\\y%"
    with pytest.raises(BadRequest, match="NUL"):
        normalized(b"/a%00", BY_HAND)
    assert normalized(b"/a//../b", Normalization(merge_slashes=False)) == b"/a/b"
    assert normalized(b"//a/../b", Normalization(merge_slashes=False)) == b"//b"
    assert normalized(b"/a//../b", Normalization(dot_segments=False)) == b"/a/../b"


def test_names_with_underscores() -> None:
    headers = [(b"a_b", b"1"), (b"a-b", b"2")]
    assert acceptable(headers, Underscores.ALLOW) == headers
    assert acceptable(headers, Underscores.DROP) == [(b"a-b", b"2")]
    with pytest.raises(BadRequest, match="underscore"):
        acceptable(headers, Underscores.REJECT)
    assert acceptable(headers[1:], Underscores.REJECT) == headers[1:]


PIECES = [
    b"/", b"//", b".", b"..", b"%2e", b"%2E", b"%2f", b"%5C", b"\\", b"a", b"%61", b"%25", b"2e", b"%3b", b";x", b"?",
    b"\xe9", b"%e9", b"%7e", b"%", b"%0",
]  # fmt: skip
TARGETS = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))
SETTINGS = st.builds(
    Normalization,
    dot_segments=st.booleans(),
    merge_slashes=st.booleans(),
    escaped_slashes=st.sampled_from(EscapedSlashes),
)


@given(TARGETS, SETTINGS)
def test_normalizing_again_changes_nothing(target: bytes, how: Normalization) -> None:
    try:
        once = normalized(target, how)
    except BadRequest:
        return
    except Elsewhere as moved:
        once = moved.target
    assert normalized(once, how) == once


@given(TARGETS)
def test_the_one_form_holds_nothing_that_has_another_form(target: bytes) -> None:
    try:
        path, _, query = normalized(target, SECURE).partition(b"?")
    except BadRequest:
        return
    assert path.startswith(b"/")
    assert not re.search(rb"//|/\.\.?(?:/|$)|\\|[^\x21-\x7e]|%(?![0-9A-F]{2})", path)
    for escape in re.findall(rb"%(..)", path):
        assert not re.fullmatch(rb"[\w.~-]", bytes([int(escape, 16)]), re.ASCII)
    assert query == target.partition(b"?")[2]
