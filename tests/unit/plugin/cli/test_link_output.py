from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from plugin.answers.status import EndpointStatus, ServiceStatus
from plugin.cli import link_output
from plugin.cli.admin_client import NotRunning
from plugin.cli.link import file_warnings, request
from plugin.cli.link_output import Showing, WaitFor, wait
from plugin.linking.edit import Refused
from tests.unit.plugin.admin.test_admin import READY

ASKED: dict[str, Any] = {
    "name": "db", "target": "10.0.0.9:5432", "gateway": "gw", "ca_file": "", "cert_file": "", "key_file": "",
    "sni": "", "allow": (), "node": "", "instance_id": "", "replaces": False, "create": False,
}  # fmt: skip
SERVED = ServiceStatus(name="db", served=True, endpoints=(EndpointStatus(address="10.0.0.9:5432"),))


def waiting(*, served: bool = True, admin_address: str = "") -> WaitFor:
    return WaitFor(
        service="db", gateway=READY.service, served=served, wait_s=0.01, admin_address=admin_address, runtime_dir=None
    )


def answering(monkeypatch: pytest.MonkeyPatch, *services: ServiceStatus, **fields: Any) -> None:
    body = msgspec.json.encode(msgspec.structs.replace(READY, services=services, **fields))
    monkeypatch.setattr(link_output, "fetch", lambda *_, **__: body)


def test_every_wrong_argument_is_named_at_once() -> None:
    with pytest.raises(Refused) as refused:
        request({**ASKED, "target": "nowhere", "name": "*", "sni": "x"})
    assert len(refused.value.reasons) == 3
    assert request(ASKED).address == "10.0.0.9:5432"


def test_files_that_this_host_cannot_read_are_a_warning(tmp_path: Path) -> None:
    there = tmp_path / "ca.pem"
    there.write_text("x")
    assert file_warnings(request({**ASKED, "ca_file": str(there)})) == []
    absent, folder = str(tmp_path / "absent.pem"), str(tmp_path)
    warnings = file_warnings(request({**ASKED, "ca_file": folder, "cert_file": absent, "key_file": "key.pem"}))
    assert [folder in warnings[0], absent in warnings[1], "working directory" in warnings[2]] == [True] * 3


def test_what_the_gateway_serves_was_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, SERVED)
    assert wait(waiting())[0]
    assert not wait(waiting(served=False))[0]


@pytest.mark.parametrize(
    "service",
    [
        ServiceStatus(name="db", served=False, reasons=("no CAFile",)),
        msgspec.structs.replace(SERVED, reasons=("no CAFile",)),
        msgspec.structs.replace(SERVED, endpoints=()),
    ],
)
def test_what_is_not_or_not_quite_served_was_not(service: ServiceStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, service)
    followed, text = wait(waiting())
    assert not followed
    assert "has not followed" in text
    assert all(reason in text for reason in service.reasons)


def test_a_gateway_that_is_not_here_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> bytes:
        raise NotRunning("none")

    monkeypatch.setattr(link_output, "fetch", absent)
    followed, text = wait(waiting())
    assert followed
    assert f"consul-tgw status --service {READY.service}" in text


def test_another_gateway_at_the_address_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, SERVED, service="other")
    assert "no gateway" in wait(waiting(admin_address="127.0.0.1:1"))[1]


def test_one_way_to_show_at_a_time() -> None:
    with pytest.raises(click.UsageError):
        Showing(dry_run=False, as_hcl=True, as_json=True)
