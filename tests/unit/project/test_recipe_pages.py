"""The pages of ``docs/recipes``: all are followed by a test, and name all the entries; and how they are read."""

from __future__ import annotations

import re

import pytest

from tests.support.command import ROOT
from tests.support.console import Command, commands, shows

ENTRIES, PAGES = ROOT / "consul-config", ROOT / "docs" / "recipes"
PAGE = """# Title

```console
$ one \\
>   more
seen
$ two
```

```hcl
$ not a command
```
"""


def test_every_page_is_followed_and_has_commands() -> None:
    pages = {path.stem for path in PAGES.glob("*.md")} - {"README"}
    test = (ROOT / "tests" / "consul" / "test_recipes.py").read_text()
    assert set(re.findall(r'kitchen\.follow\("([^"]+)"\)', test)) == pages
    index = (PAGES / "README.md").read_text()
    for name in pages:
        assert f"({name}.md)" in index
        assert list(commands((PAGES / f"{name}.md").read_text()))


def test_every_file_of_a_recipe_is_on_a_page() -> None:
    written = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    for path in ENTRIES.glob("*/*"):
        assert path.relative_to(ROOT).as_posix() in written, path


def test_every_link_of_a_page_leads_somewhere() -> None:
    for path in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_commands_and_what_is_seen() -> None:
    assert list(commands(PAGE)) == [Command("one \\\n  more", ("seen",)), Command("two", ())]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [(["b"], True), (["a", "c"], True), (["a", "...", "c"], True), (["c", "a"], False), (["d"], False), ([], True)],
)
def test_lines_are_seen_in_their_order(wanted: list[str], shown: bool) -> None:
    assert shows("xa\n b \nc\n", wanted) is shown
