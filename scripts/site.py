"""``make docs``: the documentation as a site in build/site.

Pages link each other as they lie in the repository, so that they can be read there. For the site they are laid out in
the same way in a folder of their own, with what is beside docs/ and linked from there.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from scripts.steps import Failed, run, say

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
PARTS = ("README.md", "SECURITY.md", "CHANGELOG.md", "docs", "consul-config")
FOLDER_LINK = re.compile(r"\]\(((?!https?:)[^)\s#]+)/\)")
"""A link to a folder: to its README on the site."""
_FETCHED = re.compile(r"""<(?:link|script|img|iframe|source)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
_IN_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])((?:https?:)?//[^"')]+)""")


def lay_out(root: Path, target: Path) -> None:
    """Copy what the site is made of. A README beside pages is their index, as it is in the repository."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in PARTS:
        if (root / name).is_dir():
            shutil.copytree(root / name, target / name)
        else:
            shutil.copy(root / name, target / name)
    for folder in sorted(path for path in (target / "consul-config").rglob("*") if path.is_dir()):
        if not (folder / "README.md").exists():
            (folder / "README.md").write_text(listing(folder))
    for page in target.rglob("*.md"):
        text = page.read_text()
        page.write_text(FOLDER_LINK.sub(r"](\1/README.md)", text))


def listing(folder: Path) -> str:
    """A page with what the files of ``folder`` say: the repository shows them itself, a site does not."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    parts = (f"## {path.name}\n\n```\n{path.read_text().rstrip()}\n```\n" for path in files)
    return f"# Entries: {folder.name}\n\n" + "\n".join(parts)


def outside(site: Path) -> list[str]:
    """What a browser would fetch from other hosts when it shows a page of ``site``."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            pattern = _FETCHED if path.suffix == ".html" else _IN_STYLE
            text = path.read_text(errors="replace")
            found += [
                f"{path.relative_to(site)}: {one}"
                for one in pattern.findall(re.sub(r'<link rel="?canonical.*?>', "", text))
            ]
    return found


def main() -> int:
    lay_out(ROOT, SOURCE)
    mkdocs = ROOT / ".venvs" / "docs" / "bin" / "mkdocs"
    try:
        # The theme's makers print an advertisement otherwise.
        run([str(mkdocs), "build", "--strict", "--quiet"], {**os.environ, "NO_MKDOCS_2_WARNING": "1"}, ROOT)
    except Failed as failure:
        say(str(failure))
        return 1
    if fetched := outside(SITE):
        say("the site would ask other hosts:\n" + "\n".join(fetched))
        return 1
    say(f"built: {SITE.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
