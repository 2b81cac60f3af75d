"""Every input that fuzzing has found worth keeping, against the invariant of its target."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz import target as targets
from fuzz.target import Target

TARGETS = {target.name: target for target in targets.every()}
SLOW = {"dns_answers"}
"""A question by UDP each: the corpus is enough here."""


@pytest.mark.parametrize("name", TARGETS)
def test_every_input_of_the_corpus_keeps_the_invariant(name: str) -> None:
    entries = TARGETS[name].entries()
    assert entries, f"fuzz/corpus/{name} is empty"
    for path in entries:
        try:
            TARGETS[name].run(path.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {path}")
            raise


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in SLOW])
def test_any_bytes_keep_the_invariant(name: str) -> None:
    target = TARGETS[name]

    @given(st.binary(max_size=300))
    def holds(data: bytes) -> None:
        target.run(data)

    holds()


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_an_invariant_is_one_sentence(target: Target) -> None:
    assert target.invariant.endswith(".")
    assert ". " not in target.invariant


def test_the_corpora_are_of_targets_that_exist() -> None:
    assert {path.name for path in targets.CORPUS.iterdir()} == set(TARGETS)


def test_targets_do_not_need_what_only_fuzzing_installs() -> None:
    for path in (targets.HERE / "targets").glob("*.py"):
        imported = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            for name in _imported(node)
        }  # fmt: skip
        assert "atheris" not in imported, path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_inputs_stay_small() -> None:
    large = [path for target in TARGETS.values() for path in target.entries() if path.stat().st_size > 64 * 1024]
    assert large == list[Path]()
