"""The client's own part: what it asks, how long it waits, and what it makes of answers."""

from __future__ import annotations

import pytest

from plugin.consul import client as client_module
from plugin.consul import endpoints
from plugin.consul.api import GatewayService, Roots
from plugin.consul.client import ConsulClient, decode, decode_rows
from plugin.consul.transport import Reply
from plugin.errors import ConsulRejected, ConsulUnavailable
from plugin.settings import ConsulSettings
from tests.support.fake_consul import FakeConsul, silent


async def test_blocking_read_sends_index_and_wait_only_when_it_blocks() -> None:
    async with FakeConsul() as fake, ConsulClient(fake.settings) as client:
        fake.values[endpoints.ROOTS] = {}
        await client.blocking_get(endpoints.ROOTS)
        await client.blocking_get(endpoints.ROOTS, [("name", "x")], index=7, wait_s=1.5)
        assert dict(fake.requests[0].query) == {}
        assert dict(fake.requests[1].query) == {"name": "x", "index": "7", "wait": "1500ms"}


async def test_blocking_read_that_overstays_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MARGIN_S", 0.1)
    async with FakeConsul() as fake, ConsulClient(fake.settings) as client:
        fake.fail(endpoints.ROOTS, silent(30))
        with pytest.raises(ConsulUnavailable):
            await client.blocking_get(endpoints.ROOTS, index=3, wait_s=0.2)


async def test_environment_does_not_override_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "http://[::1]:1/prefix")
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "of-the-environment")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    async with FakeConsul() as fake, ConsulClient(fake.settings) as client:
        fake.values["/v1/agent/check/pass/alive"] = None
        await client.pass_check("alive", "well")
        (request,) = fake.requests
        assert request.method == "PUT"
        assert request.query["note"] == "well"
        assert request.headers["X-Consul-Token"] == "a-token"


async def test_missing_thing_is_a_refusal() -> None:
    async with FakeConsul() as fake, ConsulClient(fake.settings) as client:
        with pytest.raises(ConsulRejected) as caught:
            await client.get("/v1/agent/service/none", type=dict[str, object])
        assert caught.value.status == 404


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"ActiveRootID": 1}', b"\xff", b'{"TrustDomain": "hush"}', b'{"a":' + b"[" * 100_000]
)
def test_body_that_breaks_the_promise_is_unavailable_and_not_quoted(body: bytes) -> None:
    with pytest.raises(ConsulUnavailable, match="cannot be read") as caught:
        decode(Reply(200, 1, body, {}), Roots, endpoints.ROOTS)
    assert "hush" not in str(caught.value)


def test_null_is_a_list_without_rows() -> None:
    assert decode_rows(Reply(200, 1, b"null\n", {}), GatewayService, "rows") == ()
    row = b'[{"Service": {"Name": "db"}, "FromWildcard": true, "New": 1}]'
    (service,) = decode_rows(Reply(200, 1, row, {}), GatewayService, "rows")
    assert (service.service.name, service.from_wildcard) == ("db", True)
    with pytest.raises(ConsulUnavailable):
        decode_rows(Reply(200, 1, b'[{"FromWildcard": true}]', {}), GatewayService, "rows")


async def test_client_can_be_closed_unused() -> None:
    async with ConsulClient(ConsulSettings()):
        pass
