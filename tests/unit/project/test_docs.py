"""The documentation holds together: every page is in the site's navigation, every link and anchor leads somewhere,
every command that is shown is one that exists, and figures are those that were measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml  # type: ignore[import-untyped]

from plugin.cli import commands
from plugin.known_keys import KEYS
from proxy.http import replies
from scripts.site import PARTS, lay_out, outside
from scripts.site_nav import below, expanded

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(ROOT / "consul-config").rglob("*.md"),
        *(ROOT / name for name in PARTS if name.endswith(".md")),
    ]
)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
SETS = frozenset({"decisions", "recipes"})
"""Folders of pages that have a list of their own."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def without_code(text: str) -> str:
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """As GitHub and the site make them of headings; those that the two make differently are of no use."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        plain = re.sub(r"[^\w\s-]", "", plain).strip().lower()
        if (slug := plain.replace(" ", "-")) == re.sub(r"[-\s]+", "-", plain):
            found.add(slug)
    return found


def faults_of_links(page: Path, text: str) -> Iterator[str]:
    for target in LINK.findall(without_code(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        folder = path.endswith("/") and there.is_dir()  # The site shows its README, or what is in it.
        if not (there.is_file() or folder) or ROOT not in there.parents:
            yield f"{target}: no such page"
        elif there.relative_to(ROOT).parts[0] not in PARTS:
            yield f"{target}: is not part of the site"
        elif anchor and not folder and anchor not in anchors(there):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_anchor_leads_somewhere(page: Path) -> None:
    assert list(faults_of_links(page, page.read_text())) == []


def test_links_that_lead_nowhere_are_found() -> None:
    text = "[a](gone.md) [b](operating.md#gone) [c](operating.md#stopping) [d](../plugin/gateway.py) `[e](gone.md)`"
    found = list(faults_of_links(DOCS / "index.md", text))
    assert [one.partition(":")[0] for one in found] == ["gone.md", "operating.md#gone", "../plugin/gateway.py"]


def test_folders_that_are_linked_have_a_page_on_the_site(tmp_path: Path) -> None:
    lay_out(ROOT, tmp_path)
    for page in PAGES:
        laid_out = tmp_path / page.relative_to(ROOT)
        for target in LINK.findall(without_code(laid_out.read_text())):
            path = target.partition("#")[0]
            assert re.match(r"[a-z]+:", target) or not path or (laid_out.parent / path).is_file(), (
                name_of(page),
                target,
            )
    assert "## " in (tmp_path / "consul-config" / "http" / "README.md").read_text()


def in_nav(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        yield from (page for inner in entry.values() for page in in_nav(inner))
    elif isinstance(entry, list):
        yield from (page for inner in entry for page in in_nav(inner))


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    pages = list(in_nav(expanded(nav, below(ROOT))))
    assert sorted(pages) == [name_of(page) for page in PAGES], "add the page to `nav` of mkdocs.yml"


def test_every_question_page_is_in_the_index() -> None:
    linked = set(LINK.findall((DOCS / "index.md").read_text()))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page.parent.name not in SETS}
    assert pages - linked - {"index.md"} == set(), "add a question to docs/index.md"


def test_decisions_are_listed_by_number() -> None:
    listed = re.findall(r"^\| \[(\d+)\]\((\d+)-[^)]*\.md\)", (DOCS / "decisions" / "README.md").read_text(), re.M)
    assert [number for number, _ in listed] == sorted(page.name[:3] for page in (DOCS / "decisions").glob("[0-9]*.md"))
    assert all(number == of_file for number, of_file in listed)


def test_the_site_asks_no_other_host(tmp_path: Path) -> None:
    """Of the check itself; `make docs` makes it on what was built."""
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]["font"] is False
    (tmp_path / "good.html").write_text('<script src="js/a.js"></script><a href="https://example.com/">there</a>')
    assert outside(tmp_path) == []
    (tmp_path / "bad.html").write_text('<link rel="stylesheet" href="https://fonts.example.com/a.css">')
    (tmp_path / "bad.css").write_text("@font-face { src: url(//fonts.example.com/a.woff) }")
    assert len(outside(tmp_path)) == 2


# --- commands -----------------------------------------------------------------------------------------------------


def shown_commands(text: str) -> Iterator[str]:
    """What begins with the program's name: in blocks, where lines may go on, and between backticks."""
    for block in re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.M | re.S):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            if found := re.match(r"(?:\s|\$ |> |[A-Z_]+=\S+ |\S*=?(?=/))*(?:\S*/bin/)?(consul-tgw [a-z-]+.*)", line):
                yield re.sub(r"\s+#.*", "", found[1])
    yield from re.findall(r"`(consul-tgw [a-z-][^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def fault_of_command(line: str) -> str:
    """Why ``line`` is no use of the program; empty when it is one. Values are not looked at."""
    lexer = shlex.shlex(line.replace("...", ""), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words = list(lexer)[1:]
    words = words[: next((place for place, word in enumerate(words) if set(word) <= set("|&;<>")), len(words))]
    command: click.Command = commands
    context = click.Context(commands, info_name="consul-tgw")
    while words and isinstance(command, click.Group) and not words[0].startswith("-"):
        if (inner := command.get_command(context, words[0])) is None:
            # A group with arguments of its own has no such; the program itself has no arguments.
            return "" if command is not commands else f"there is no command {words[0]}"
        command, context, words = inner, click.Context(inner, context, words[0]), words[1:]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word == "--":
            break
        if word.startswith("-") and word != "-" and word.partition("=")[0] not in known:
            return f"{context.command_path} has no {word}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_shown_exists(page: Path) -> None:
    faults = [(line, fault) for line in shown_commands(page.read_text()) if (fault := fault_of_command(line))]
    assert faults == []


def test_commands_are_seen_and_wrong_ones_found() -> None:
    assert sum(len(list(shown_commands(page.read_text()))) for page in PAGES) > 150
    assert fault_of_command("consul-tgw connections kill 0-1 --reason 'x y' | cat --number") == ""
    assert fault_of_command("consul-tgw conections") == "there is no command conections"
    assert fault_of_command("consul-tgw status --sort x") == "consul-tgw status has no --sort"
    assert fault_of_command("consul-tgw connections kill --watch") == "consul-tgw connections kill has no --watch"
    (line,) = shown_commands(
        "```console\n$ CONSUL_HTTP_TOKEN=x .venv/bin/consul-tgw check \\\n    --service a  # b\n```\n"
    )
    assert line.split() == ["consul-tgw", "check", "--service", "a"]


# --- what pages say of the code and of figures ----------------------------------------------------------------------


def test_tuning_has_every_flag_about_limits_and_times() -> None:
    run = commands.get_command(click.Context(commands), "run")
    assert run is not None
    flags = {max(one.opts, key=len) for one in run.params if isinstance(one, click.Option)}
    about = {flag for flag in flags if re.match(r"--(max|drain)-|.*-timeout$|--workers$", flag)}
    assert len(about) > 8
    page = (DOCS / "tuning.md").read_text()
    assert {flag for flag in about if f"| `{flag}` |" not in page} == set()


def test_the_migration_says_of_every_key_whether_it_is_honoured() -> None:
    section = (DOCS / "migration-from-envoy.md").read_text().split("## Keys of Proxy.Config")[1].split("\n## ")[0]
    honoured = " ".join(line for line in section.splitlines() if "| honoured" in line)
    for key in KEYS:
        assert f"`{key}`" in honoured, key


def test_figures_of_the_comparison_are_those_that_were_measured() -> None:
    measured = (DOCS / "performance.md").read_text()
    section = (DOCS / "comparison.md").read_text().split("| Measured")[1].split("\n\n")[0]
    figures = [figure for row in section.splitlines()[2:] for figure in re.findall(r"[\d.,]+", row.split("|", 2)[2])]
    assert len(figures) > 15
    for figure in figures:
        assert f"| {figure} (" in measured or f" {figure} (" in measured, f"{figure} is not in docs/performance.md"


def test_troubleshooting_knows_what_the_gateway_answers() -> None:
    page = (DOCS / "troubleshooting.md").read_text()
    for reply in vars(replies).values():
        if isinstance(reply, replies.Reply) and reply.text:
            assert reply.text.rpartition(": ")[2] in page, reply.text
