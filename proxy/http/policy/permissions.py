"""Permissions of intentions, compiled: the first one that a request matches decides about it.

An external service may read a request in more than one way (:mod:`proxy.http.policy.readings`; a header that is
repeated; bytes that are no text). What is unsure never helps a caller: a permission that allows matches only when it
does in every reading, one that denies as soon as it does in any. Where a request has one reading, both are what
Consul and Envoy do.
Source: https://developer.hashicorp.com/consul/docs/reference/config-entry/service-intentions#sources-permissions
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import re2

from proxy.http.policy.asked import WHOLE, Asked
from proxy.http.policy.normalization import one_spelling
from proxy.http.policy.readings import readings_of_pattern
from proxy.http.policy.told import NOT_PASSED_ON
from proxy.rules import Action, HeaderMatch, Match, Permission

_MAX_PATTERN_MEMORY = 4 * 1024 * 1024
"""Bytes, of one compiled expression. RE2 takes time in proportion to the text, whatever the expression."""
_NAMES_READINGS = re.compile(rb"[%;]|//")
"""Whoever writes these in an expression has thought of them: it is asked about the path as it is forwarded."""


_Test = Callable[[Asked], bool]
_ValueTest = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class CompiledPermission:
    """``permission``, ready to be asked. What it says about tokens is not looked at here."""

    permission: Permission
    number: int
    """The first one is 1."""
    name: str
    """``permission 2 (GET /admin*)``"""
    unusable: str
    """Why it cannot be evaluated: a request that comes to it is denied. Empty: it can."""
    tests: tuple[_Test, ...]

    def matches(self, asked: Asked) -> bool:
        for test in self.tests:  # noqa: SIM110 (a generator is half as fast)
            if not test(asked):
                return False
        return True


def compile_permissions(permissions: Sequence[Permission]) -> tuple[CompiledPermission, ...]:
    """Never fails: what cannot be compiled becomes unusable."""
    return tuple(_compiled(number, permission) for number, permission in enumerate(permissions, 1))


def problem(permission: Permission) -> str:
    """Say why requests that come to ``permission`` are denied; empty when it can be evaluated."""
    return _compiled(1, permission).unusable


def described(permission: Permission) -> str:
    """What it is about, short: ``GET,HEAD /admin*, x-role``."""
    shown = {Match.ANY: "any path", Match.PREFIX: f"{permission.path_value}*", Match.REGEX: f"~{permission.path_value}"}
    parts = [shown.get(permission.path, permission.path_value)]
    if permission.methods:
        parts[0] = f"{','.join(permission.methods)} {parts[0]}"
    parts += [header.name for header in permission.headers]
    parts += [f"token of {requirement.provider}" for requirement in permission.tokens]
    return ", ".join(parts)


def _compiled(number: int, permission: Permission) -> CompiledPermission:
    name = f"permission {number} ({described(permission)})"
    unusable, tests = permission.unusable, []
    if not unusable:
        try:
            tests = list(_tests(permission))
        except _Unusable as error:
            unusable = str(error)
    return CompiledPermission(permission, number, name, unusable, tuple(tests))


class _Unusable(Exception):
    """The text says what cannot be evaluated, and why."""


def _tests(permission: Permission) -> list[_Test]:
    """The cheap ones first."""
    surely = permission.action is Action.ALLOW
    tests: list[_Test] = []
    if permission.methods:
        methods = frozenset(method.encode() for method in permission.methods)
        tests.append(lambda asked: asked.head.method in methods)
    if permission.path is not Match.ANY:
        tests.append(_path_test(permission.path, permission.path_value, surely=surely))
    tests += [_header_test(header, surely=surely) for header in permission.headers]
    return tests


# --- paths -------------------------------------------------------------------------------------------------------


def _path_test(match: Match, value: str, *, surely: bool) -> _Test:
    if match is Match.REGEX:
        return _path_expression(value, surely=surely)
    if match not in (Match.EXACT, Match.PREFIX):
        raise _Unusable(f"a path cannot be compared by {match.value!r}")
    patterns = readings_of_pattern(one_spelling(value.encode()))
    first, written = patterns[0], patterns[:3]
    same: Callable[[bytes, bytes], bool] = bytes.__eq__ if match is Match.EXACT else bytes.startswith

    def allows(asked: Asked) -> bool:
        paths = asked.paths
        return same(paths[0], first) and (len(paths) == 1 or all(map(same, paths, patterns)))

    def denies(asked: Asked) -> bool:
        paths = asked.paths
        return same(paths[0], first) or (
            len(paths) > 1 and any(same(path, pattern) for path in paths for pattern in written)
        )

    return allows if surely else denies


def _path_expression(value: str, *, surely: bool) -> _Test:
    fits = _expression(value, "PathRegex")
    if not surely:
        return lambda asked: any(map(fits, asked.paths))
    if _NAMES_READINGS.search(value.encode()):
        return lambda asked: fits(asked.paths[0])
    return lambda asked: all(map(fits, asked.paths))


# --- headers -----------------------------------------------------------------------------------------------------


def _header_test(header: HeaderMatch, *, surely: bool) -> _Test:
    name, of = header.name.lower().encode(), _values_test(header, surely=surely)
    if not name.startswith(NOT_PASSED_ON):
        return lambda asked: of(asked.values(name))
    # The external service does not get these: for it there are none, for a sidecar they were said.
    absent = of([])
    if surely:
        return lambda asked: absent and of(asked.values(name))
    return lambda asked: absent or of(asked.values(name))


def _values_test(header: HeaderMatch, *, surely: bool) -> Callable[[list[bytes]], bool]:
    name, invert = header.name.lower().encode(), header.invert
    if header.match is Match.PRESENT:
        return lambda values: bool(values) is not invert
    every = surely is not invert
    """Whether the comparison, before it is inverted, has to hold in every reading, or in any."""
    fits, whole = _value_test(header, every=every), WHOLE.get(name)
    joint = b"; " if name == b"cookie" else b","

    def test(values: list[bytes]) -> bool:
        if len(values) == 1:
            return fits(values[0]) is not invert
        if not values:
            # Inverted, of a header that is not there: to Envoy it does not match, to the letter it does.
            return invert and not surely
        if every:
            return (fits(whole(values)) if whole else all(map(fits, values))) is not invert
        return (any(map(fits, values)) or fits(joint.join(values))) is not invert

    return test


def _value_test(header: HeaderMatch, *, every: bool) -> _ValueTest:
    if header.match is Match.REGEX:
        return _value_expression(header, every=every)
    same, wanted = _COMPARISONS.get(header.match), header.value.encode()
    if same is None:
        raise _Unusable(f"the header {header.name!r} cannot be compared by {header.match.value!r}")
    if header.ignore_case:
        wanted = wanted.lower()
        return lambda value: same(value.lower(), wanted)
    return lambda value: same(value, wanted)


_COMPARISONS: dict[Match, Callable[[bytes, bytes], bool]] = {
    Match.EXACT: bytes.__eq__,
    Match.PREFIX: bytes.startswith,
    Match.SUFFIX: bytes.endswith,
    Match.CONTAINS: bytes.__contains__,
}


def _value_expression(header: HeaderMatch, *, every: bool) -> _ValueTest:
    """To RE2, text is UTF-8, and no ``.`` matches what is not; Envoy and many servers read Latin-1."""
    fits = _expression(header.value, f"Regex of the header {header.name!r}", ignore_case=header.ignore_case)

    def test(value: bytes) -> bool:
        if value.isascii():
            return fits(value)
        as_latin = fits(value.decode("latin-1").encode())
        if as_latin is not every or not _is_utf8(value):
            return as_latin
        return fits(value)

    return test


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _expression(pattern: str, what: str, *, ignore_case: bool = False) -> _ValueTest:
    """RE2, all of the text."""
    options = re2.Options()
    options.max_mem = _MAX_PATTERN_MEMORY
    options.log_errors = False
    options.never_capture = True
    options.case_sensitive = not ignore_case
    try:
        fullmatch = re2.compile(pattern.encode(), options).fullmatch
    except (re2.error, UnicodeEncodeError) as error:
        raise _Unusable(f"the {what} {pattern[:80]!r} is not an expression of RE2: {_told(error)}") from error
    return lambda value: fullmatch(value) is not None


def _told(error: Exception) -> str:
    said = error.args[0] if error.args else error
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
