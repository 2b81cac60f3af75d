"""``make reference``: write docs/reference anew."""

from __future__ import annotations

import sys

from scripts.reference.pages import FOLDER, pages
from scripts.steps import say


def main() -> int:
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for old in FOLDER.glob("*.md"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text)
        say(f"written: docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
