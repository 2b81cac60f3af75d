"""Facts in, services out: golden files, and what happens to a service over time."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from plugin.assemble.assembler import (
    AssembledMesh,
    AssembledService,
    Assembler,
    Unserved,
    assemble_mesh,
    assemble_mesh_with_warnings,
    assemble_service,
    assemble_with_warnings,
)
from plugin.consul.api import LinkedService
from plugin.errors import FileUnreadable
from plugin.facts import ServiceFacts
from proxy.model import Service
from tests.support.goldens import GOLDENS, Case, cases, fact, material

NOON_S = 1_000_000.0


def shown(assembled: AssembledService | AssembledMesh) -> dict[str, Any]:
    if isinstance(assembled.outcome, Unserved):
        return {"unserved": assembled.outcome.reasons, "warnings": assembled.warnings}
    return {"assembled": assembled.outcome, "warnings": assembled.warnings}


@pytest.mark.parametrize("case", cases("services"), ids=lambda case: case.path.stem)
def test_a_service_is_what_the_golden_file_says(case: Case) -> None:
    case.check(shown(assemble_with_warnings(case.service, case.mesh)))


@pytest.mark.parametrize("case", cases("http"), ids=lambda case: case.path.stem)
def test_a_service_of_layer_7_is_what_the_golden_file_says(case: Case) -> None:
    case.check(shown(assemble_with_warnings(case.service, case.mesh)))


@pytest.mark.parametrize("case", cases("meshes"), ids=lambda case: case.path.stem)
def test_a_mesh_is_what_the_golden_file_says(case: Case) -> None:
    case.check(shown(assemble_mesh_with_warnings(case.mesh)))


def test_every_combination_of_tls_fields() -> None:
    (case,) = [case for case in cases(".") if case.path.stem == "tls-combinations"]
    outcomes: list[dict[str, Any]] = []
    for link in case.content["links"]:
        facts = dataclasses.replace(case.service, link=msgspec.convert(link, LinkedService))
        assembled = assemble_with_warnings(facts, case.mesh)
        given = "+".join(field for field in ("CAFile", "CertFile", "KeyFile", "SNI") if field in link) or "nothing"
        if isinstance(assembled.outcome, Unserved):
            outcomes.append({"given": given, "unserved": assembled.outcome.reasons, "warnings": assembled.warnings})
        else:
            tls = assembled.outcome.upstream_tls
            outcomes.append({"given": given, "upstream_tls": tls, "warnings": assembled.warnings})
    assert len(outcomes) == 16
    case.check({"outcomes": outcomes})


def plain() -> Case:
    return next(case for case in cases("services") if case.path.stem == "plain")


def with_tls(**files: str) -> ServiceFacts:
    """A service whose link has all three files, with the content of those that are named."""
    paths = {"ca": "/tls/ca.pem", "cert": "/tls/client.pem", "key": "/tls/client.key"}
    link = LinkedService(name="db", ca_file=paths["ca"], cert_file=paths["cert"], key_file=paths["key"], sni="a")
    content = {paths[name]: fact(material()[pem].encode()) for name, pem in files.items()}
    return dataclasses.replace(plain().service, link=link, files=content)


GOOD = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}


def test_a_rotation_that_is_half_done_is_not_felt_and_policy_goes_on() -> None:
    """The certificate is new and its key is not: the pair before stays, everything else is the newest."""
    assembler, mesh = Assembler(), plain().mesh
    before = assembler.assemble(with_tls(**GOOD), mesh).outcome
    assert isinstance(before, Service)
    half = dataclasses.replace(with_tls(**{**GOOD, "key": "other.key"}), intentions=fact(_denying_everybody()))
    assembled = assembler.assemble(half, mesh)
    assert isinstance(assembled.outcome, Service)
    assert assembled.outcome.upstream_tls == before.upstream_tls
    assert assembled.outcome.intentions != before.intentions
    assert any("is not the key of the first certificate" in warning for warning in assembled.warnings)


def _denying_everybody() -> tuple[Any, ...]:
    case = next(case for case in cases("services") if case.path.stem == "intentions")
    return tuple(match for match in case.service.intentions.value or () if match.action == "deny")


def test_a_change_of_sni_counts_while_the_files_are_broken() -> None:
    assembler, mesh = Assembler(), plain().mesh
    assembler.assemble(with_tls(**GOOD), mesh)
    broken = with_tls(ca="client.key", cert="client.pem", key="client.key")
    renamed = dataclasses.replace(broken, link=msgspec.structs.replace(broken.link, sni="b"))
    assembled = assembler.assemble(renamed, mesh).outcome
    assert isinstance(assembled, Service)
    assert assembled.upstream_tls is not None
    assert assembled.upstream_tls.server_name == "b"
    assert assembled.upstream_tls.ca_pem == material()["ca.pem"]


def test_other_files_that_cannot_be_used_leave_the_earlier_session_whole() -> None:
    assembler, mesh = Assembler(), plain().mesh
    before = assembler.assemble(with_tls(**GOOD), mesh).outcome
    elsewhere = dataclasses.replace(
        with_tls(**GOOD), link=LinkedService(name="db", ca_file="/elsewhere.pem", sni="elsewhere"), files={}
    )
    after = assembler.assemble(elsewhere, mesh).outcome
    assert isinstance(before, Service)
    assert isinstance(after, Service)
    assert after.upstream_tls == before.upstream_tls


def test_a_service_that_never_had_good_files_is_not_served() -> None:
    outcome = Assembler().assemble(with_tls(**{**GOOD, "key": "other.key"}), plain().mesh).outcome
    assert isinstance(outcome, Unserved)
    assert "KeyFile /tls/client.key is not the key" in outcome.reasons[0]


def test_a_link_that_goes_back_to_plain_forgets_its_certificates() -> None:
    assembler, mesh = Assembler(), plain().mesh
    assembler.assemble(with_tls(**GOOD), mesh)
    assembler.assemble(plain().service, mesh)
    assert isinstance(assembler.assemble(with_tls(ca="client.key"), mesh).outcome, Unserved)


def test_an_unlinked_service_is_forgotten() -> None:
    assembler, mesh = Assembler(), plain().mesh
    assembler.assemble(with_tls(**GOOD), mesh)
    assembler.forget(plain().service.name)
    assert isinstance(assembler.assemble(with_tls(ca="client.key"), mesh).outcome, Unserved)


def test_a_file_that_vanished_is_a_warning_and_its_content_stays() -> None:
    facts = with_tls(**GOOD)
    files = {path: known.failed(FileUnreadable(f"{path} does not exist")) for path, known in facts.files.items()}
    assembled = assemble_with_warnings(dataclasses.replace(facts, files=files), plain().mesh)
    assert isinstance(assembled.outcome, Service)
    assert len([warning for warning in assembled.warnings if "does not exist" in warning]) == 3


@pytest.mark.parametrize(
    ("now_s", "warning"), [(NOON_S, ""), (4e9, "has expired"), (None, "")], ids=["fresh", "expired", "untimed"]
)
def test_the_end_of_a_certificate_is_a_warning(now_s: float | None, warning: str) -> None:
    assembled = assemble_with_warnings(with_tls(**GOOD), plain().mesh, now_s=now_s)
    assert isinstance(assembled.outcome, Service)
    expiry = [text for text in assembled.warnings if "expire" in text]
    assert bool(expiry) == bool(warning)
    assert all(warning in text and "/tls/client.pem" in text for text in expiry)


def test_the_short_forms_give_the_outcome_alone() -> None:
    case = plain()
    assert assemble_service(case.service, case.mesh) == assemble_with_warnings(case.service, case.mesh).outcome
    assert assemble_mesh(case.mesh) == assemble_mesh_with_warnings(case.mesh).outcome


def test_known_without_a_value_is_not_known_for_what_is_a_list() -> None:
    service = plain().service
    for facts in (
        dataclasses.replace(service, instances=fact(None)),
        dataclasses.replace(service, intentions=fact(None)),
        dataclasses.replace(service, leaf=fact(None)),
    ):
        assert isinstance(assemble_service(facts, plain().mesh), Unserved)


def test_a_private_key_is_in_no_representation() -> None:
    assembled = assemble_with_warnings(with_tls(**GOOD), plain().mesh)
    assert "PRIVATE KEY" not in repr(assembled)


def test_golden_files_hold_no_key() -> None:
    for path in GOLDENS.rglob("*.json"):
        assert "PRIVATE KEY" not in path.read_text()
