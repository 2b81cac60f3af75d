"""``make release``: builds the artefacts of the checked-out commit into dist/.

They are built from an export of the commit, so that nothing that merely lies in the checkout gets in. ``--check``
builds them twice in two folders and ends with 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from scripts.release import provenance, site
from scripts.steps import Failed, run, say

ROOT = Path(__file__).resolve().parent.parent.parent
DIST = ROOT / "dist"
TOOLS = ROOT / ".venvs" / "release" / "bin"
PYTHON = Path(sys.executable)


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"`git {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


def export(commit: str, tree: Path) -> None:
    archive = tree.with_suffix(".tar")
    run(["git", "archive", "--format=tar", f"--output={archive}", commit], cwd=ROOT)
    tree.mkdir()
    run(["tar", "--extract", f"--file={archive}", f"--directory={tree}"])
    archive.unlink()


def build(commit: str, epoch: int, version: str, work: Path) -> Path:
    """All artefacts of ``commit``, in a folder inside the empty folder ``work``."""
    tree, made = work / "tree", work / "made"
    export(commit, tree)
    environment = {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONDONTWRITEBYTECODE": "1"}
    run([str(TOOLS / "hatchling"), "build", "--directory", str(made)], environment, cwd=tree)
    (wheel,) = made.glob("*.whl")
    zipapp(tree / "requirements" / "run.lock", wheel, made / zipapp_name(version), work / "site", environment)
    manual(work / "site", made / f"consul-tgw-{version}-man.tar.gz", work / "man", environment)
    # The audit reads this checkout, which is the commit: nothing in it is changed.
    bill = made / f"consul-tgw-{version}.cdx.json"
    run([str(PYTHON), "-m", "scripts.audit", "--offline", "--sbom", str(bill)], cwd=ROOT)
    digests = provenance.sums(made.iterdir())
    (made / provenance.PROVENANCE).write_text(
        provenance.provenance(
            commit=commit,
            epoch=epoch,
            version=version,
            python=platform.python_version(),
            platform=sysconfig.get_platform(),
            locks=provenance.sums((tree / "requirements").glob("*.lock")),
            made=digests,
        )
    )
    (made / provenance.SUMS).write_text(provenance.written_sums(provenance.sums(made.iterdir())))
    return made


def zipapp_name(version: str) -> str:
    """It holds native code, so it is for one minor version of Python on one platform."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    return f"consul-tgw-{version}-{tag}-{sysconfig.get_platform().replace('-', '_')}.pyz"


def zipapp(lock: Path, wheel: Path, target: Path, packages: Path, environment: dict[str, str]) -> None:
    site.install(PYTHON, lock, wheel, packages)
    interpreter = f"/usr/bin/env python{sys.version_info.major}.{sys.version_info.minor}"
    command = [str(TOOLS / "shiv"), "--site-packages", str(packages), "--console-script", "consul-tgw", "--compressed"]
    # The processes that it starts import from where it was unpacked, too.
    command += ["--reproducible", "--extend-pythonpath", "--python", interpreter, "--output-file", str(target)]
    run(command, environment)


def manual(packages: Path, target: Path, folder: Path, environment: dict[str, str]) -> None:
    """The manual pages of the commands, by the commands themselves."""
    command = [str(PYTHON), "-m", "plugin", "man", "--directory", str(folder)]
    run(command, {**environment, "PYTHONPATH": str(packages)}, cwd=packages)
    epoch = environment["SOURCE_DATE_EPOCH"]
    same = ["--sort=name", f"--mtime=@{epoch}", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644"]
    plain = target.with_suffix("")
    run(
        [
            "tar",
            "--create",
            *same,
            f"--file={plain}",
            f"--directory={folder}",
            *sorted(one.name for one in folder.iterdir()),
        ]
    )
    run(["gzip", "--no-name", "--best", str(plain)])


def release(check: bool) -> None:
    if git("status", "--porcelain"):
        raise Failed("this checkout has changes that are in no commit: commit or stash them first")
    commit, epoch = git("rev-parse", "HEAD"), int(git("log", "-1", "--format=%ct"))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    say(f"release {version} of {commit}, as of {epoch}")
    with (
        tempfile.TemporaryDirectory(prefix="release-") as first,
        tempfile.TemporaryDirectory(prefix="again-") as second,
    ):
        made = build(commit, epoch, version, Path(first))
        digests = provenance.sums(made.iterdir())
        if check:
            again = provenance.sums(build(commit, epoch, version, Path(second)).iterdir())
            if found := provenance.differences(digests, again):
                raise Failed("two builds differ:\n" + "\n".join(found))
            say(f"built twice, {len(digests)} files, no byte differs")
        shutil.rmtree(DIST, ignore_errors=True)
        shutil.copytree(made, DIST)
    for name, digest in sorted(digests.items()):
        say(f"{digest}  {DIST.relative_to(ROOT) / name}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make release", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="build twice and compare")
    os.umask(0o022)
    try:
        release(parser.parse_args(arguments).check)
    except (Failed, OSError) as failure:
        say(f"release: FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
