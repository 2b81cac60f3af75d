"""Elements of ``Permissions`` and ``JWT``: what is understood is as written, and what is not denies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.assemble.intentions import read_intentions
from plugin.assemble.permissions import permission, requirements
from plugin.consul.api import IntentionMatch
from plugin.consul.strict import NotUnderstood
from proxy.rules import Action, Match

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KNOWN = st.fixed_dictionaries(
    {"Action": st.sampled_from(["allow", "deny"])},
    optional={
        "HTTP": st.fixed_dictionaries(
            {},
            optional={
                "PathExact": JSON | st.just("/a"),
                "PathPrefix": JSON | st.just("/a"),
                "PathRegex": JSON | st.sampled_from(["/a", "/(", ""]),
                "Methods": JSON | st.lists(st.sampled_from(["GET", "post"])),
                "Header": JSON | st.lists(st.fixed_dictionaries({"Name": st.just("x")}, optional={"Exact": JSON})),
            },
        ),
        "JWT": JSON,
    },
)


@given(JSON | KNOWN)
def test_whatever_an_element_is_it_becomes_a_permission(element: object) -> None:
    read = permission(element)
    if not isinstance(element, dict) or element.get("Action") not in {"allow", "deny"}:
        assert read.unusable
    if read.action is Action.ALLOW and not read.unusable:
        http = element.get("HTTP") or {} if isinstance(element, dict) else {}
        assert len(read.headers) == len(http.get("Header") or ())
        assert (read.path is Match.ANY) == (not any(http.get(f"Path{kind}") for kind in ("Exact", "Prefix", "Regex")))


@pytest.mark.parametrize("field", ["HTTP", "JWT", "Action"])
def test_an_unknown_field_is_named(field: str) -> None:
    element: dict[str, Any] = {"Action": "allow", "HTTP": {"PathExact": "/"}}
    read = permission({**element, f"{field}2": {}})
    assert f"`{field}2`" in read.unusable


def test_a_reason_is_short_whatever_it_quotes() -> None:
    assert len(permission({"Action": "a" * 100_000}).unusable) < 500
    assert len(permission({"Action": "allow", "b" * 100_000: 1}).unusable) < 500
    assert len(permission({"Action": "allow", "HTTP": {"PathRegex": "(" * 100_000}}).unusable) < 500


def test_a_regular_expression_too_large_for_re2_is_unusable() -> None:
    element = {"Action": "allow", "HTTP": {"PathRegex": "((a{1000}){1000}){1000}"}}
    assert "is not an expression of RE2" in permission(element).unusable


@pytest.mark.parametrize("jwt", [{}, {"Providers": []}, {"Providers": None}, [], "okta", 1])
def test_a_requirement_without_a_provider_is_not_understood(jwt: object) -> None:
    with pytest.raises(NotUnderstood):
        requirements(jwt)


def test_many_unusable_permissions_are_counted_and_not_listed() -> None:
    match = IntentionMatch(source_name="web", destination_name="api", permissions=[{}] * 10_000)
    decoded = read_intentions([match])
    assert len(decoded.intentions[0].permissions) == 10_000
    assert len(decoded.warnings) == 6
    assert decoded.warnings[-1].startswith("9995 more permissions of the intention web => api")


@pytest.mark.parametrize("permissions", [0, False, "", {}, "all", {"Action": "allow"}])
def test_permissions_that_are_no_list_deny(permissions: object) -> None:
    match = IntentionMatch(source_name="web", destination_name="api", action="allow", permissions=permissions)
    (intention,) = read_intentions([match]).intentions
    assert intention.action is Action.DENY
    assert intention.layer7
