"""The command line of the comparison."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bench.__main__ import _parts, main
from bench.measures import PARTS, SECTIONS, STEADY
from bench.mesh import PROTOCOLS, SIDECAR_BEHAVIOURS


def parts(text: str | None) -> tuple[str, ...]:
    return _parts(None, None, text)  # type: ignore[arg-type]


def test_parts_are_chosen_with_commas_and_measured_in_their_order() -> None:
    assert parts("http, echo") == ("echo", "http")
    assert parts(None) == PARTS


def test_an_unknown_part_is_named_with_those_that_there_are() -> None:
    answer = CliRunner().invoke(main, ["--only", "echo,bulc"])
    assert answer.exit_code == 2
    assert "no part is called bulc: there are bulk, echo" in answer.output


def test_a_measure_is_of_one_part_and_has_one_key() -> None:
    keys = [measure.key for part in PARTS for measure in SECTIONS[part]]
    names = [measure.name for part in PARTS for measure in SECTIONS[part]]
    assert len(set(keys)) == len(keys)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("part", STEADY)
def test_what_goes_through_a_sidecar_has_an_upstream(part: str) -> None:
    for workload in STEADY[part]:
        assert not workload.sidecar or workload.behaviour in SIDECAR_BEHAVIOURS
        assert not workload.command.startswith(("http", "grpc")) or workload.behaviour in PROTOCOLS
