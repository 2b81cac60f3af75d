"""What a release is made of and how two builds of it are compared, and that its recipes name what there is."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from scripts.release import provenance, site

ROOT = Path(__file__).resolve().parents[3]
CONTAINERFILE = ROOT / "packaging" / "container" / "Containerfile"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    text = provenance.written_sums(provenance.sums(tmp_path.iterdir()))
    assert [line[-1] for line in text.splitlines()] == ["a", "b"]
    checked = subprocess.run(["sha256sum", "--check", "--strict"], cwd=tmp_path, input=text, text=True, check=False)
    assert checked.returncode == 0


def test_equal_builds_have_no_difference() -> None:
    assert provenance.differences({"a": "1"}, {"a": "1"}) == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": "1"}, {"a": "2"}, ["a: 1 and 2"]),
        ({"a": "1"}, {}, ["a: 1 and absent"]),
        ({"a": "1"}, {"a": "1", "b": "2"}, ["b: absent and 2"]),
        ({}, {}, ["nothing was built"]),
    ],
)
def test_every_difference_is_named(first: dict[str, str], second: dict[str, str], expected: list[str]) -> None:
    assert provenance.differences(first, second) == expected


def test_the_provenance_names_commit_locks_and_artefacts() -> None:
    text = provenance.provenance(
        commit="c0ffee", epoch=7, version="1.0", python="3.11.2", platform="p", locks={"run.lock": "1"}, made={"w": "2"}
    )
    assert json.loads(text) == {
        "name": "consul-tgw",
        "version": "1.0",
        "commit": "c0ffee",
        "source_date_epoch": 7,
        "python": "3.11.2",
        "platform": "p",
        "locks": {"run.lock": "1"},
        "artefacts": {"w": "2"},
    }


def test_nothing_of_the_machine_stays_in_the_zipapp(tmp_path: Path) -> None:
    metadata = tmp_path / "thing-1.dist-info"
    for path in ("bin/thing", "thing.py", "thing-1.dist-info/direct_url.json", "thing-1.dist-info/METADATA"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("#!/somewhere/python")
    (metadata / "RECORD").write_text(
        "thing.py,sha256=x,1\n../../bin/thing,sha256=y,1\nthing-1.dist-info/direct_url.json,sha256=z,1\n"
        '"a,b.py",,\nthing-1.dist-info/METADATA,sha256=m,1\n'
    )
    site.strip(tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"thing.py", "thing-1.dist-info/METADATA", "thing-1.dist-info/RECORD"}
    assert (metadata / "RECORD").read_text().splitlines() == [
        '"a,b.py",,',
        "thing-1.dist-info/METADATA,sha256=m,1",
        "thing.py,sha256=x,1",
    ]


def test_the_container_copies_what_there_is_and_is_not_root() -> None:
    text = CONTAINERFILE.read_text()
    copied = [path for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for path in line.split()]
    assert "requirements/run.lock" in copied
    assert [path for path in copied if not (ROOT / path).exists()] == []
    *_, user = re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert "0" not in user
    installs = re.findall(r" install --no-cache-dir (?:[^&\\]|\\\n)*", text)
    assert len(installs) == 3
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_may_only_read_and_pin_what_they_use(workflow: Path) -> None:
    text = workflow.read_text()
    assert re.findall(r"^ *permissions:.*\n((?: +\S.*\n)+)", text, re.MULTILINE) == ["  contents: read\n"]
    used = re.findall(r"uses: *(\S+)", text)
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", each)] == []


def test_there_are_workflows_for_every_change_and_for_releases() -> None:
    assert [workflow.stem for workflow in WORKFLOWS] == ["ci", "release"]
    called = " ".join(workflow.read_text() for workflow in WORKFLOWS)
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"run: make ([a-z]+)", called))
    assert targets == {"audit", "release"}
    assert all(f"\n{target}: " in makefile for target in targets)
