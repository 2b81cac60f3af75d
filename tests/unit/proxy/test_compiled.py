"""Which form a worker runs: only one that was made of the very sources, by nobody else, for this interpreter."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxy import compiled
from proxy.compiled import CACHE, CODE, INTERPRETED, CodeError, digest, file_of, find, handed_on, modules, shared
from scripts.compiled import narrowed_to_none

SOURCES = Path(compiled.__file__).parent


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole folder, made of the sources as they are."""
    # Folders above may be anybody's where tests run.
    monkeypatch.setattr(compiled, "_above", lambda folder: (folder.parent,))
    cache = tmp_path / "cache"
    folder = cache / "compiled" / digest()
    folder.mkdir(parents=True, mode=0o755)
    for name in (*modules(), shared()):
        file_of(folder, name).touch(0o755)
    (folder / compiled.MANIFEST).write_text(json.dumps({"compiler": "mypyc 1"}))
    return cache


def test_it_is_found(cache: Path) -> None:
    code = find({CACHE: str(cache), CODE: "auto"})
    assert code.folder == cache / "compiled" / digest()
    assert str(code) == "compiled (mypyc 1)"
    assert find({CACHE: str(cache), CODE: "compiled"}) == code
    assert str(find({CACHE: str(cache), CODE: "interpreted"})) == "interpreted (as long as nothing else is asked for)"


def test_without_being_asked_for_it_is_not_looked_for(cache: Path) -> None:
    for environment in ({CACHE: str(cache)}, {CACHE: str(cache), CODE: "interpreted"}):
        assert find(environment).folder is None


def test_what_was_made_of_other_sources_is_not(cache: Path) -> None:
    folder = cache / "compiled" / digest()
    folder.rename(folder.with_name("0" * 32))
    assert "of other sources" in str(find({CACHE: str(cache), CODE: "auto"}))
    with pytest.raises(CodeError, match="CONSUL_TGW_CODE=compiled, but what was compiled is of other sources"):
        find({CACHE: str(cache), CODE: "compiled"})


def test_an_edit_of_any_module_is_another_digest(tmp_path: Path) -> None:
    copy = tmp_path / "proxy"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = digest(copy)
    assert before == digest()
    for name in ("messages.py", "http/wire.py"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content + b"\n")
        assert digest(copy) != before
        (copy / name).write_bytes(content)
    (copy / "another.py").touch()
    assert digest(copy) != before


@pytest.mark.parametrize("what", [".", "..", "one"])
def test_nor_what_others_may_change(cache: Path, what: str) -> None:
    folder = cache / "compiled" / digest()
    path = file_of(folder, "proxy.http.wire") if what == "one" else (folder / what).resolve()
    path.chmod(0o775)
    assert f"{path} could have been written by another user" in str(find({CACHE: str(cache), CODE: "auto"}))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_nor_what_is_anothers(cache: Path) -> None:
    path = file_of(cache / "compiled" / digest(), shared())
    os.chown(path, 1, 1)
    assert f"{path} could have been written by another user" in str(find({CACHE: str(cache), CODE: "auto"}))


def test_every_folder_above_counts(tmp_path: Path) -> None:
    assert compiled._above(tmp_path) == tuple(tmp_path.parents)


def test_what_is_not_whole_is_not_used(cache: Path) -> None:
    folder = cache / "compiled" / digest()
    file_of(folder, "proxy.http.wire").unlink()
    assert "lacks proxy.http.wire" in str(find({CACHE: str(cache), CODE: "auto"}))
    (folder / compiled.MANIFEST).write_text("{")
    assert "cannot be used" in str(find({CACHE: str(cache), CODE: "auto"}))


def test_where_nothing_was_compiled(tmp_path: Path) -> None:
    for environment in ({}, {CACHE: str(tmp_path)}, {"HOME": str(tmp_path)}, {"XDG_CACHE_HOME": str(tmp_path)}):
        assert str(find({**environment, CODE: "auto"})) == "interpreted (nothing was compiled on this machine)"
    with pytest.raises(CodeError, match="none of interpreted, auto"):
        find({CODE: "fast"})


def test_a_worker_looks_where_its_gateway_does() -> None:
    assert handed_on({"HOME": "/home/a", CODE: "compiled"}) == {CACHE: "/home/a/.cache/consul-tgw", CODE: "compiled"}
    assert handed_on({CACHE: "/var/cache/tgw", "HOME": "/"}) == {CACHE: "/var/cache/tgw"}
    assert handed_on({}) == {}


def test_the_interpreted_ones_are_there_and_the_early_ones_among_them() -> None:
    everything = {
        ".".join(("proxy", *path.relative_to(SOURCES).with_suffix("").parts)) for path in SOURCES.rglob("*.py")
    }
    assert {name for name in INTERPRETED if name != "proxy"} <= everything
    script = (
        "import sys, proxy.compiled, proxy.confinement, proxy.logs; "
        "assert not set(proxy.compiled.modules()) & set(sys.modules); proxy.compiled.use()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=SOURCES.parent, check=True)


_SAFE_IN_A_SLICE = {"len", "max", "min", "int"}


@pytest.mark.parametrize("name", modules())
def test_bounds_of_slices_do_nothing(name: str) -> None:
    """mypyc 2.4 evaluates those of a ``memoryview`` twice: what reads or sends is called before, by a name."""
    for node in ast.walk(ast.parse(modules()[name].read_bytes())):
        if isinstance(node, ast.Slice):
            for inner in ast.walk(node):
                assert not isinstance(inner, ast.NamedExpr | ast.Await | ast.Yield), ast.unparse(node)
                if isinstance(inner, ast.Call):
                    function = inner.func
                    known = function.id if isinstance(function, ast.Name) else ""
                    searched = isinstance(function, ast.Attribute) and function.attr in ("index", "find", "end")
                    assert known in _SAFE_IN_A_SLICE or searched, f"{name}: {ast.unparse(node)}"


@pytest.mark.parametrize("name", modules())
def test_an_exception_has_a_name_of_its_own(name: str) -> None:
    """mypyc 2.4 gives a name the type of the first exception that has it, and any other is a ``TypeError``."""
    for function in ast.walk(ast.parse(modules()[name].read_bytes())):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            caught: dict[str, str] = {}
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and node.name is not None and node.type is not None:
                    kind = ast.unparse(node.type)
                    assert caught.setdefault(node.name, kind) == kind, f"{name}, line {node.lineno}: {node.name}"


def test_a_build_is_refused_in_which_something_is_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "ops.txt").write_text("""
def Wire.flush(self):
L5:
    r12 = borrow self._failure
    r13 = unbox(None, r12)
    r14 = self._flush()
    r15 = unbox(None, r14)
def Wire.end(self):
    r1 = self._error
    r2 = cast(None, r1)
    r3 = unbox(None, r12)
""")
    assert narrowed_to_none(tmp_path) == ["self._failure in Wire.flush", "self._error in Wire.end"]
