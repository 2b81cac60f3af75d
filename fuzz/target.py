"""The targets, their invariants and their corpora.

A target is a module of :mod:`fuzz.targets`: its docstring is the invariant, in one sentence; ``CODE`` names the modules
that it exercises; ``run`` takes any bytes, and raises when the invariant does not hold for them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    invariant: str
    code: tuple[str, ...]
    run: Callable[[bytes], None]

    @property
    def corpus(self) -> Path:
        """Inputs that are kept with the code."""
        return CORPUS / self.name

    @property
    def found(self) -> Path:
        """Inputs that were found on this machine, outside of the checkout."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return home / "consul-tgw" / "fuzz" / self.name

    def entries(self) -> list[Path]:
        return sorted(path for path in self.corpus.iterdir() if path.is_file())


def names() -> list[str]:
    return sorted(path.stem for path in (HERE / "targets").glob("*.py") if path.stem != "__init__")


def load(name: str) -> Target:
    """:raises ModuleNotFoundError: when there is no such target."""
    module = importlib.import_module(f"fuzz.targets.{name}")
    return Target(name, " ".join((module.__doc__ or "").split()), module.CODE, module.run)


def every() -> Iterator[Target]:
    return map(load, names())


def name_of(content: bytes) -> str:
    """What a file of a corpus is called: by its content, so that none is there twice."""
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()[:16]
