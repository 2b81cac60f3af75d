"""What mypyc makes of the modules that can be compiled. Compiling them takes minutes, and is for ``make compiled``."""

from __future__ import annotations

from pathlib import Path

from scripts.compiled import narrowed_to_none, operations_in


def test_nothing_is_read_as_none_that_may_have_been_set(tmp_path: Path) -> None:
    """mypyc takes an attribute that was set to None, or compared with it, for None until the function sets it again.
    When something that it called has set it, reading it is a ``TypeError``."""
    assert narrowed_to_none(operations_in(tmp_path / "work")) == []
