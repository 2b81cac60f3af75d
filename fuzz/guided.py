"""One target under atheris: ``python -m fuzz.guided TARGET [options of libFuzzer]``.

New inputs go to the target's cache folder; an input that breaks the invariant is written there as ``crash-...``.
"""

from __future__ import annotations

import sys

import atheris

from fuzz import target as targets


def main() -> None:
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["plugin", "proxy"]):
        target = targets.load(name)
    target.found.mkdir(parents=True, exist_ok=True)
    target.corpus.mkdir(parents=True, exist_ok=True)
    folders = [str(target.found), str(target.corpus)]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={target.found}/", *folders], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
