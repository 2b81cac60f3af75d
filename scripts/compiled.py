"""Compiles the modules of a worker with mypyc, into the cache that :mod:`proxy.compiled` looks in.

The sources stay what they are and where they are; what is made of them lies outside the checkout, under a digest of
them. Run with the project's own environment: ``.venv/bin/python -m scripts.compiled``. ``--into`` names another cache,
for a machine that has no compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

from proxy import compiled
from scripts.steps import Failed, say

ROOT = Path(__file__).resolve().parent.parent
_KEPT_S = 14 * 24 * 3600.0
"""What was compiled of other sources, and not asked for since, is removed after so long."""

_BUILD = """
import json, sys
from setuptools import setup
from mypyc.build import mypycify
group, sources = json.loads(sys.argv.pop())
setup(
    name=group,
    packages=[],
    ext_modules=mypycify(
        ["--config-file", "mypy.ini", *sources], opt_level="2", debug_level="0", group_name=group
    ),
)
"""
_FUNCTION = re.compile(r"def (\S+)\(")
_STEP = re.compile(r"\s+(r\d+) = (.*)")
_UNBOXED_NONE = re.compile(r"(?:unbox|cast)\(None, (r\d+)\)")
_ATTRIBUTE = re.compile(r"(?:borrow )?\w+\.\w+")
_MYPY = "[mypy]\nstrict = True\nmypy_path = typings\nexplicit_package_bases = True\n"


def compiler() -> str:
    return f"mypyc {metadata.version('mypy')}"


def compile_into(cache: Path) -> tuple[Path, bool]:
    """The folder of what is compiled of the sources as they are, and whether it was there already.

    :raises Failed: with what the compiler says.
    """
    target = cache / compiled.digest()
    if _is_made(target):
        os.utime(target)
        return target, True
    cache.mkdir(parents=True, exist_ok=True, mode=0o755)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".being-made-") as name:
        made = _build(Path(name))
        shutil.rmtree(target, ignore_errors=True)
        try:
            made.rename(target)
        except OSError:
            if not _is_made(target):  # else somebody else has made the same meanwhile
                raise
    _tidy(cache, keep=target)
    return target, False


def _is_made(target: Path) -> bool:
    manifest = target / compiled.MANIFEST
    return manifest.exists() and json.loads(manifest.read_bytes())["compiler"] == compiler()


def operations_in(work: Path) -> Path:
    """What mypyc makes of the sources, without compiling it: what :func:`narrowed_to_none` looks at.

    :raises Failed: with what mypyc says.
    """
    _setup(work, _copy(work), "--name")
    return work


def _copy(work: Path) -> dict[str, str]:
    """A copy of the sources, so that whoever edits them meanwhile gets what the digest says, or nothing.

    :returns: the modules to compile and their files in ``work``.
    """
    shutil.copytree(ROOT / "proxy", work / "proxy", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "typings", work / "typings")
    (work / "mypy.ini").write_text(_MYPY)
    (work / "build.py").write_text(_BUILD)
    return {name: str(path.relative_to(work)) for name, path in compiled.modules(work / "proxy").items()}


def _setup(work: Path, sources: dict[str, str], *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "build.py", *command, json.dumps([compiled.GROUP, list(sources.values())])],
        cwd=work,
        env={**os.environ, "PYTHONPATH": "", "MYPY_CACHE_DIR": str(work / ".mypy_cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        raise Failed(done.stdout.decode(errors="replace")[-4_000:].rstrip())


def _build(place: Path) -> Path:
    work, made = place / "work", place / "made"
    sources = _copy(work)
    before = compiled.digest(work / "proxy")
    _setup(work, sources, "build_ext", "--inplace")
    if narrowed := narrowed_to_none(work):
        raise Failed(
            f"read as None though something else may have been set since: {', '.join(narrowed)}; ask by a method there"
        )
    if before != compiled.digest():
        raise Failed("the sources were edited while they were compiled; run it again")
    made.mkdir(mode=0o755)
    for name in (*sources, compiled.shared()):
        path = work.joinpath(*name.split("."))
        (built,) = path.parent.glob(f"{path.name}.*.so")
        built.chmod(0o755)
        built.rename(compiled.file_of(made, name))
    (made / compiled.MANIFEST).write_text(json.dumps({"compiler": compiler(), "python": sys.version}))
    return made


def narrowed_to_none(work: Path) -> list[str]:
    """Attributes that a function reads as None, because it has set or compared them before: calls in between may have
    set them.

    :param work: where mypyc has written what its own steps are.
    """
    found: dict[str, None] = {}
    function, read = "", dict[str, str]()
    for line in (work / "build" / "ops.txt").read_text().splitlines():
        if begins := _FUNCTION.match(line):
            function, read = begins[1], {}
        elif step := _STEP.match(line):
            name, what = step.groups()
            if (unboxed := _UNBOXED_NONE.fullmatch(what)) and _ATTRIBUTE.fullmatch(read.get(unboxed[1], "")):
                found[f"{read[unboxed[1]].removeprefix('borrow ')} in {function}"] = None
            read[name] = what
    return list(found)


def _tidy(cache: Path, *, keep: Path) -> None:
    for old in cache.iterdir():
        if old != keep and old.stat().st_mtime < time.time() - _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.compiled", description=__doc__)
    parser.add_argument("--into", type=Path, metavar="DIR", help="the cache, instead of the one that workers look in")
    into: Path | None = parser.parse_args().into
    cache = into if into is not None else compiled.cache()
    if cache is None:
        say(f"no HOME, and no {compiled.CACHE}: name a place with --into")
        return 2
    os.umask(0o022)
    try:
        folder, before = compile_into(cache)
    except (Failed, OSError) as error:
        say(str(error))
        return 1
    say(f"{compiler()}, {len(compiled.modules())} modules, {'before: ' if before else ''}{folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
