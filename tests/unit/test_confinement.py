from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

import pytest

from proxy import confinement
from proxy.confinement import Confinement, ConfinementError, confine

Kernel = Callable[..., int]


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """This process stays as it is; gives what was asked of prctl."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(confinement, "_prctl", lambda option, value: asked.append((option, value)))
    monkeypatch.setattr(confinement, "setrlimit", lambda *_: None)
    return asked


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 1]),
        (5, [0xFFFF, 1]),
        (6, [0xFFFF, 1, 3]),
        (99, [0xFFFF, 1, 3]),
    ],
)
def test_each_kernel_is_asked_for_all_that_it_knows(version: int, fields: list[int]) -> None:
    attributes, size = confinement._ruleset(version)
    assert (list(attributes), size) == (fields, 8 * len(fields))


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (444, "this kernel has no Landlock, or the sandbox around us forbids it: Function not implemented"),
        (446, "Landlock cannot be used: Function not implemented"),
    ],
)
def test_a_kernel_without_landlock_is_said(
    monkeypatch: pytest.MonkeyPatch, harmless: list[tuple[int, int]], refused: int, why: str
) -> None:
    def kernel(number: int, *_: object) -> int:
        if number == refused:
            raise OSError(38, "Function not implemented")
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(confinement, "_syscall", kernel)
    assert confine(Confinement()) == why
    assert harmless == [(38, 1), (4, 0)]


def test_debuggers_are_let_in_when_told(monkeypatch: pytest.MonkeyPatch, harmless: list[tuple[int, int]]) -> None:
    monkeypatch.setattr(confinement, "_close_files", lambda: "")
    assert confine(Confinement(debuggable=True)) == ""
    assert harmless == [(38, 1), (4, 1)]


@pytest.mark.usefixtures("harmless")
def test_a_user_who_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refused)
    monkeypatch.setattr(confinement, "_close_files", lambda: pytest.fail("it went on"))
    with pytest.raises(ConfinementError, match="cannot become user 12345: Operation not permitted"):
        confine(Confinement(user=12_345, group=12_345))


def test_what_the_kernel_refuses_is_raised() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        confinement._syscall(confinement._CREATE_RULESET, (ctypes.c_uint64 * 1)(0), 3, 0)
