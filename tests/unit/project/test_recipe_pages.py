"""The pages of ``docs/recipes``: all are followed by a test, and name all the entries; and how they are read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.consul.test_pages import PAGES as FOLLOWED
from tests.support.command import ROOT
from tests.support.console import Command, commands, not_run, shows

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

<!-- not run: there is no such machine -->

```console
$ three
```

```console
$ four    # in a terminal of its own
$ five
shown
^C
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


def pages() -> list[Path]:
    """All that are read by people, but for those that are written from the code."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "consul-config").rglob("*.md")]
    found += (ROOT / "vagrant").rglob("*.md")
    return [path for path in found if "reference" not in path.parts]


def test_every_command_of_the_documentation_is_run_or_says_why_not() -> None:
    """In ``console`` blocks; one that is not run has its reason above it, and is one of these."""
    left_out: dict[str, list[str]] = {}
    followed = {*FOLLOWED, *(path.relative_to(ROOT).as_posix() for path in PAGES.glob("*.md"))}
    for path in pages():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
            is_typed = re.search(r"^(\$ |consul-tgw |consul |make |curl |ssh )", block, re.M)
            assert language == "console" or not is_typed, f"{name} has commands in a block that is no console: {block}"
        if list(commands(text)):
            assert name in followed, f"{name}: follow it in tests/consul/test_pages.py, or mark its blocks"
        if not_run(text):
            left_out[name] = [why for _, why in not_run(text)]
    assert left_out == {
        "README.md": ["it is what runs the tests; tests/consul/test_dev.py does what `make run ARGS=--once` does"],
        "docs/dashboard.md": ["it takes another host"],
        "vagrant/README.md": [
            *["it takes root and the lab, which tests/lab brings up once"] * 5,
            "it takes virtual machines",
        ],
    }
    assert sum(len(list(commands((ROOT / name).read_text()))) for name in followed) > 120


def test_every_file_of_a_recipe_is_on_a_page() -> None:
    written = "\n".join(path.read_text() for path in PAGES.glob("*.md"))
    for path in ENTRIES.glob("*/*"):
        assert path.relative_to(ROOT).as_posix() in written, path


def test_every_link_of_a_page_leads_somewhere() -> None:
    for path in PAGES.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_commands_and_what_is_seen() -> None:
    found = list(commands(PAGE))
    four = "four    # in a terminal of its own"
    assert found == [
        *(Command("one \\\n  more", ("seen",)), Command("two", ()), Command(four, ())),
        Command("five", ("shown", "^C")),
    ]
    assert [one.goes_on for one in found] == [False, False, True, False]
    assert [one.interrupted for one in found] == [False, False, False, True]
    assert not_run(PAGE) == [("$ three\n", "there is no such machine")]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [(["b"], True), (["a", "c"], True), (["a", "...", "c"], True), (["c", "a"], False), (["d"], False), ([], True)],
)
def test_lines_are_seen_in_their_order(wanted: list[str], shown: bool) -> None:
    assert shows("xa\n b \nc\n", wanted) is shown
