"""docs/reference is what the code says now."""

from __future__ import annotations

import pytest

from plugin.cli import _NAMES
from scripts.reference import admin_api
from scripts.reference.fields import in_json
from scripts.reference.pages import FOLDER, pages
from scripts.reference.text import code, prose

MADE = pages()


def test_there_are_these_pages_and_no_others() -> None:
    assert {path.name for path in FOLDER.iterdir()} == MADE.keys()


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_committed_page_is_what_the_script_writes(name: str) -> None:
    committed = (FOLDER / name).read_text()
    assert committed == MADE[name], f"docs/reference/{name} is of another code: run `make reference`"


def test_every_command_has_its_section() -> None:
    for name in (*_NAMES, "connections kill"):
        assert f"\n## {name}\n" in MADE["commands.md"], name
    for flag in ("`--max-connections N`", "`--state-dir PATH`", "unix:///PATH</code>"):
        assert flag in MADE["commands.md"]


def test_every_route_says_what_it_is_for_and_what_it_answers() -> None:
    found = list(admin_api.routes())
    assert len(found) > 15
    for method, path, text in found:
        assert text, f"{method} {path} has no docstring"
    untyped = {path for _, path, _ in found if path.startswith("/api/")} - admin_api.ANSWERS.keys()
    assert untyped == {"/api/refresh", "/api/snapshot"}, "give the answer's type in scripts/reference/admin_api.py"
    assert admin_api.ANSWERS.keys() <= {path for _, path, _ in found}


def test_types_are_shown_as_json_has_them() -> None:
    assert in_json(tuple[str, ...]) == "list of string"
    assert in_json(dict[str, float]) == "object of number"
    assert in_json(int | None) == "integer or null"
    assert in_json(object) == "any JSON"


def test_docstrings_become_markdown() -> None:
    assert prose("A :class:`proxy.model.CloseReason`,\n  or ``None``.") == "A `CloseReason`, or `null`."
    assert code("a|b<c") == "<code>a&#124;b&lt;c</code>"
