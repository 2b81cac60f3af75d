"""A hook of mkdocs: patterns in the navigation stand for the pages of a folder, so that a new page needs no line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def expanded(entry: Any, found: Callable[[str], list[str]]) -> Any:
    """``entry`` of a navigation, with the pages that ``found`` gives for a pattern; a README comes first."""
    if isinstance(entry, list):
        return [expanded(one, found) for one in entry]
    if isinstance(entry, dict):
        return {title: expanded(inner, found) for title, inner in entry.items()}
    if isinstance(entry, str) and "*" in entry:
        return sorted(found(entry), key=lambda page: (not page.endswith("/README.md"), page))
    return entry


def below(root: Path) -> Callable[[str], list[str]]:
    return lambda pattern: [str(path.relative_to(root)) for path in root.glob(pattern)]


def on_config(config: Any) -> Any:
    """Called by mkdocs. A folder without pages has no place in the navigation."""
    nav = expanded(config["nav"], below(Path(config["docs_dir"])))
    config["nav"] = _filled(nav)
    return config


def _filled(nav: Any) -> Any:
    if isinstance(nav, list):
        return [one for one in map(_filled, nav) if one not in ([], {})]
    if isinstance(nav, dict):
        return {title: inner for title, inner in ((title, _filled(inner)) for title, inner in nav.items()) if inner}
    return nav
