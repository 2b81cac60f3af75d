"""All pages of docs/reference, by the names of their files."""

from __future__ import annotations

from pathlib import Path

from scripts.reference import admin_api, commands, logs, metrics

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
NOTICE = "Written by `make reference` from the code; a test holds the two together.\n"


def pages() -> dict[str, str]:
    made = {
        "commands.md": commands.page(),
        "metrics.md": metrics.page(),
        "log-fields.md": logs.page(),
        "admin-api.md": admin_api.page(),
    }
    return {name: text.replace("NOTICE\n", NOTICE, 1) for name, text in made.items()}
