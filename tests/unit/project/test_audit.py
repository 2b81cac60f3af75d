"""The pure parts of ``make audit``: what a lock, a licence and pip-audit's answer have to say to be accepted."""

from __future__ import annotations

import json
import tomllib
from email.message import Message
from typing import Any

import pytest

from scripts.audit import licences, locks, sbom, vulnerabilities
from scripts.audit.__main__ import ROOT, asked_by_lock, check_locks
from scripts.audit.locks import read_lock

HASH = "--hash=sha256:" + "ab" * 32


def test_the_locks_of_this_tree_are_fresh_hashed_and_name_no_host() -> None:
    pins: dict[str, Any] = {}
    assert check_locks(tomllib.loads((ROOT / "pyproject.toml").read_text()), pins) == []
    assert set(pins) == {file.stem for file in (ROOT / "requirements").glob("*.lock")}


def test_a_pin_keeps_its_marker_and_counts_its_hashes() -> None:
    (pin,), faults = read_lock(f"A_b==1.2 ; sys_platform == 'nowhere' \\\n    {HASH} \\\n    {HASH}\n# a remark\n")
    assert (pin.name, pin.version, pin.hashes, pin.applies_here(), faults) == ("a-b", "1.2", 2, False, ())


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("a==1.2", "a 1.2 has no sha256 hash"),
        ("a==1.2 --hash=md5:00", "not a pinned version"),
        (f"a>=1.2 {HASH}", "not a pinned version"),
        (f"a==1.* {HASH}", "not a pinned version"),
        (f"a>=1,==1.2 {HASH}", "not a pinned version"),
        (f"a {HASH}", "not a pinned version"),
        (f"a @ file:///a.whl {HASH}", "names a place"),
        ("--index-url somewhere", "names a place"),
        ("-f folder", "names a place"),
        ("--extra-index-url=x", "names a place"),
        ("git+ssh://example.test/a", "names a place"),
    ],
)
def test_a_line_that_does_not_pin_is_a_fault(line: str, fault: str) -> None:
    _, faults = read_lock(line + "\n")
    assert len(faults) == 1
    assert fault in faults[0]


def test_a_lock_is_stale_when_something_is_missing_or_too_old() -> None:
    pins, _ = read_lock(f"Some.Thing==1.9 {HASH}\nother==3.0rc1 {HASH}\n")
    assert locks.unmet(["some-thing>=1", "other>=3.0rc1"], pins) == []
    assert locks.unmet(["some-thing>=2", "third"], pins) == [
        "has some-thing 1.9, and some-thing>=2 is asked for",
        "lacks third",
    ]


def test_every_pin_of_a_package_has_to_fulfil_what_is_asked() -> None:
    pins, _ = read_lock(f"a==1 ; python_version < '3.12' {HASH}\na==2 ; python_version >= '3.12' {HASH}\n")
    assert len(locks.unmet(["a>=2"], pins)) == 1


def test_two_locks_with_two_versions_disagree() -> None:
    run, _ = read_lock(f"a==1 {HASH}\nb==1 {HASH}\n")
    dev, _ = read_lock(f"a==2 {HASH}\nb==1 {HASH}\nc==9 {HASH}\n")
    assert locks.disagreements(run, dev) == ["has a 2, and the other one 1"]


def test_every_group_of_the_project_has_a_lock() -> None:
    project = {"project": {"dependencies": ["a"]}, "dependency-groups": {"dev": ["b"], "fuzz": ["c"]}}
    assert asked_by_lock(project, "d>=1\n") == {"run": ["a"], "dev": ["a", "b"], "fuzz": ["c"], "go": ["d>=1"]}


def package(**fields: str) -> Message:
    message = Message()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (package(License_Expression="MIT OR GPL-3.0-only", License="other"), "MIT OR GPL-3.0-only"),
        (package(License="Apache License, Version 2.0"), "Apache-2.0"),
        (package(License="see LICENSE", Classifier="License :: OSI Approved :: MIT License"), "MIT"),
        (package(Classifier="License :: OSI Approved :: BSD License"), None),
        (package(Name="google-re2", Classifier="License :: OSI Approved :: BSD License"), "BSD-3-Clause"),
        (package(License="all yours"), None),
        (package(), None),
    ],
)
def test_what_a_package_states(metadata: Message, expected: str | None) -> None:
    assert licences.stated(metadata) == expected


def test_one_foreign_classifier_is_enough_not_to_be_understood() -> None:
    metadata = package(Classifier="License :: OSI Approved :: MIT License")
    metadata["Classifier"] = "License :: Other/Proprietary License"
    assert licences.stated(metadata) is None


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 AND MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("GPL-3.0-only OR GPL-2.0-only AND MIT", False),
        ("(MIT)", False),
        ("Apache-2.0 WITH LLVM-exception", False),
        ("", False),
    ],
)
def test_which_expressions_are_allowed(expression: str, expected: bool) -> None:
    assert licences.allowed(expression) is expected
    assert (licences.fault("a", expression) is None) is expected


def test_a_package_without_a_licence_is_refused_with_the_remedy() -> None:
    assert "scripts/audit/licences.py" in (licences.fault("a", None) or "")


def test_the_bill_of_materials_holds_no_address_and_no_order_of_the_lock() -> None:
    def component(name: str, line: int) -> dict[str, Any]:
        return {
            "bom-ref": f"requirements-L{line}",
            "description": "requirements line",
            "externalReferences": [{"type": "distribution", "url": "https://index.test/simple/"}],
            "name": name,
            "purl": f"pkg:pypi/{name}@1",
            "type": "library",
            "version": "1",
        }

    tool = {"type": "application", "name": "cyclonedx-py", "version": "7", "externalReferences": []}
    frame = {"$schema": "s", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    document = {**frame, "metadata": {"tools": {"components": [tool]}}, "dependencies": []}
    forwards = {**document, "components": [component("a", 1), component("b", 2)]}
    backwards = {**document, "components": [component("b", 1), component("a", 2)]}
    text = sbom.written(sbom.cleaned(forwards, {"a": "MIT"}, "1.0"))
    assert text == sbom.written(sbom.cleaned(backwards, {"a": "MIT"}, "1.0"))
    assert "index.test" not in text
    assert "requirements" not in text
    first, second = json.loads(text)["components"]
    assert (first["bom-ref"], first["licenses"]) == ("pkg:pypi/a@1", [{"expression": "MIT"}])
    assert "licenses" not in second


def answer(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


def test_a_skipped_package_is_not_audited() -> None:
    output = answer({"name": "A_b", "version": "1", "vulns": []}, {"name": "c", "skip_reason": "not found"})
    findings = vulnerabilities.read(output, ["a-b", "c"])
    assert (findings.vulnerable, findings.not_audited) == ((), ("c",))


def test_a_package_that_the_answer_leaves_out_is_not_audited() -> None:
    assert vulnerabilities.read(answer(), ["a", "b"]).not_audited == ("a", "b")


@pytest.mark.parametrize("output", ["", "{", "[]", "null", "{}"])
def test_without_an_answer_nothing_is_audited(output: str) -> None:
    assert vulnerabilities.read(output, ["b", "a"]).not_audited == ("a", "b")


def test_a_vulnerability_is_named_with_its_remedy() -> None:
    found = [{"id": "X-1", "fix_versions": ["2", "3"]}, {"id": "X-2", "fix_versions": []}]
    findings = vulnerabilities.read(answer({"name": "a", "version": "1", "vulns": found}), ["a"])
    assert findings.vulnerable == ("a 1: X-1, fixed in 2, 3", "a 1: X-2, no fix yet")
    assert findings.not_audited == ()
