"""Requests, errors, tokens and TLS files of the Consul transport."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul import transport as transport_module
from plugin.consul.transport import Token, Transport
from plugin.dev.pki import Authority
from plugin.errors import (
    ConfigError,
    ConsulBusy,
    ConsulForbidden,
    ConsulRejected,
    ConsulUnavailable,
    GatewayError,
    UnknownKind,
)
from plugin.settings import ConsulSettings
from tests.support.fake_consul import Answer, FakeConsul, body, silent, status, torn

PATH = "/v1/health/service/db"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (400, "Invalid index", ConsulRejected),
        (403, "Permission denied", ConsulForbidden),
        (500, "rpc error making call: Permission denied", ConsulForbidden),
        (500, "rpc error making call: ACL not found", ConsulForbidden),
        (500, "invalid config entry kind: mesh", UnknownKind),
        (500, 'CheckID "x" does not have associated TTL', ConsulRejected),
        (500, "No cluster leader", ConsulUnavailable),
        (429, "Rate limit reached, try again later", ConsulBusy),
        (503, "", ConsulUnavailable),
        (302, "", ConsulRejected),
    ],
)
async def test_statuses_become_errors_by_who_must_act(code: int, text: str, expected: type[GatewayError]) -> None:
    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        fake.fail(PATH, status(code, text))
        with pytest.raises(expected) as caught:
            await transport.request("GET", PATH)
        assert type(caught.value) is expected
        await transport.close()


async def test_404_is_an_answer_to_a_read_and_a_refusal_of_a_write() -> None:
    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        reply = await transport.request("GET", "/v1/config/mesh/mesh")
        assert (reply.status, reply.index) == (404, 10)
        with pytest.raises(ConsulRejected) as caught:
            await transport.request("PUT", "/v1/agent/check/pass/none")
        assert caught.value.status == 404
        await transport.close()


@pytest.mark.parametrize("index", ["-1", "abc", "", "1e9", "9" * 30, "\u0661"])
async def test_index_that_is_no_number_counts_as_absent(index: str) -> None:
    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        fake.fail(PATH, body(b"[]", index))
        assert (await transport.request("GET", PATH)).index is None
        await transport.close()


async def test_torn_answer_refused_connection_and_silence_are_unavailable() -> None:
    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        fake.fail(PATH, torn(b'[{"Node"', 500), torn(b'[{"Node"', 500), silent(30))
        with pytest.raises(ConsulUnavailable):
            await transport.request("GET", PATH)
        with pytest.raises(ConsulUnavailable):
            await transport.request("GET", PATH)
        with pytest.raises(ConsulUnavailable, match="no answer within"):
            await transport.request("GET", PATH, timeout_s=0.2)
    with pytest.raises(ConsulUnavailable, match="cannot be used"):
        await transport.request("GET", PATH)
    await transport.close()


async def test_body_over_the_cap_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "MAX_BODY_BYTES", 1000)
    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        fake.fail(PATH, body(b"x" * 1001), body(b"x" * 1000))
        with pytest.raises(ConsulUnavailable, match="larger than 1000 bytes"):
            await transport.request("GET", PATH)
        assert len((await transport.request("GET", PATH)).body) == 1000
        await transport.close()


async def test_connections_are_reused_and_limited() -> None:
    async with FakeConsul() as fake:
        transport = Transport(fake.settings, max_connections=3)
        fake.values[PATH] = []
        for _ in range(5):
            await transport.request("GET", PATH)
        assert len({request.transport for request in fake.requests}) == 1
        fake.fail(PATH, *[silent(0.1)] * 9)
        await asyncio.gather(*(transport.request("GET", PATH) for _ in range(9)))
        assert fake.most_open == 3
        await transport.close()


async def test_token_namespace_and_partition_travel_with_each_request() -> None:
    async with FakeConsul() as fake:
        settings = ConsulSettings(address=fake.address, token="secret", namespace="team", partition="west")
        transport = Transport(settings)
        await transport.request("GET", PATH, [("ns", "other"), ("name", "a b&c"), ("name", "d")])
        request = fake.requests[0]
        assert request.headers["X-Consul-Token"] == "secret"
        assert "secret" not in str(request.url)
        assert request.query.getall("ns") == ["other"]
        assert request.query.getall("partition") == ["west"]
        assert request.query.getall("name") == ["a b&c", "d"]
        await transport.close()


async def test_consul_ce_never_hears_of_default_tenancy() -> None:
    """It refuses the parameters as such: ``Namespaces are a Consul Enterprise feature``."""
    async with FakeConsul() as fake:
        transport = Transport(ConsulSettings(address=fake.address))
        await transport.request("GET", PATH, [("ns", "default"), ("partition", "default"), ("name", "default")])
        await transport.request("GET", PATH, [("ns", "*")])
        assert [sorted(request.query.items()) for request in fake.requests] == [[("name", "default")], []]
        await transport.close()


@pytest.mark.parametrize("tenancy", [{"namespace": "team"}, {"partition": "west"}])
async def test_consul_enterprise_hears_of_default_tenancy_too(tenancy: dict[str, Any]) -> None:
    """Left out, they would mean those of the settings or of the token."""
    async with FakeConsul() as fake:
        transport = Transport(ConsulSettings(address=fake.address, **tenancy))
        await transport.request("GET", PATH, [("ns", "default"), ("partition", "default")])
        assert dict(fake.requests[0].query) == {"ns": "default", "partition": "default"}
        await transport.close()


async def test_neither_token_nor_body_reaches_an_error_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeConsul() as fake:
        transport = Transport(ConsulSettings(address=fake.address, token="hush-token"))
        fake.fail(PATH, status(403, "Permission denied"), body(b"hush-key"))
        with pytest.raises(ConsulForbidden) as caught:
            await transport.request("GET", PATH)
        reply = await transport.request("GET", PATH)
        assert "hush" not in f"{caught.value} {reply} {caplog.text} {transport._settings}"
        await transport.close()


async def test_unix_socket_is_spoken_to(tmp_path: Path) -> None:
    application = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(["over a socket"])

    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "consul.sock")).start()
    transport = Transport(ConsulSettings(address=f"unix://{tmp_path}/consul.sock"))
    assert (await transport.request("GET", PATH)).body == b'["over a socket"]'
    await transport.close()
    await runner.cleanup()


async def test_path_of_the_address_is_kept_and_names_stay_encoded() -> None:
    async with FakeConsul() as fake:
        transport = Transport(ConsulSettings(address=f"{fake.address}/behind/"))
        await transport.request("GET", "/v1/health/service/a%2Fb")
        assert fake.requests[0].raw_path == "/behind/v1/health/service/a%2Fb"
        await transport.close()


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://[::1", "https:///x"])
def test_address_that_cannot_be_used_is_the_operators_to_change(address: str) -> None:
    with pytest.raises(ConfigError, match="Consul address"):
        Transport(ConsulSettings(address=address))


def test_token_file_is_read_again_when_it_changes_and_kept_when_it_goes(tmp_path: Path) -> None:
    file = tmp_path / "token"
    token = Token(ConsulSettings(token="variable", token_file=file))
    with pytest.raises(ConfigError, match="token file"):
        token.current()
    file.write_text("first\n")
    assert token.current() == "first"
    file.write_text("the second\n")
    assert token.current() == "the second"
    file.unlink()
    assert token.current() == "the second"
    file.write_bytes(b"\xff\xfe")
    assert token.current() == "the second"


def test_token_file_that_is_being_written_is_not_taken_for_having_no_token(tmp_path: Path) -> None:
    """Consul answers without a token too, and leaves out what strangers may not read."""
    file = tmp_path / "token"
    file.write_text("")
    token = Token(ConsulSettings(token_file=file))
    with pytest.raises(ConfigError, match="it is empty"):
        token.current()
    file.write_text("first\n")
    assert (token.current(), token.changes) == ("first", 0)
    for unusable in ("", " \n", "two\nlines\n"):
        file.write_text(unusable)
        assert token.current() == "first"
    file.write_text("first")
    assert (token.current(), token.changes) == ("first", 0)
    file.write_text("second")
    assert (token.current(), token.changes) == ("second", 1)


ACCESSOR = "6a1253d2-1785-24fd-91c2-f8e78c745511"


async def test_refusals_name_the_token_by_its_accessor_which_is_asked_for_once() -> None:
    async with FakeConsul() as fake:
        fake.values[endpoints.TOKEN_SELF] = {"AccessorID": ACCESSOR, "SecretID": "hush-token"}
        transport = Transport(fake.settings)
        fake.fail(PATH, *[status(403, "Permission denied")] * 2, status(403, "ACL not found"))
        for _ in range(2):
            with pytest.raises(ConsulForbidden, match=f"with accessor {ACCESSOR}: node_prefix") as caught:
                await transport.request("GET", PATH)
            assert caught.value.accessor == ACCESSOR
        with pytest.raises(ConsulForbidden, match=f"the ACL token with accessor {ACCESSOR}") as caught:
            await transport.request("GET", PATH)
        assert "hush" not in str(caught.value)
        assert len(fake.asked(endpoints.TOKEN_SELF)) == 1
        await transport.close()


async def test_accessor_is_known_before_the_token_is_deleted_if_consul_hides_something() -> None:
    async with FakeConsul() as fake:
        fake.values[endpoints.TOKEN_SELF] = {"AccessorID": ACCESSOR}
        fake.values[PATH] = []
        fake.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
        transport = Transport(fake.settings)
        await asyncio.gather(*(transport.request("GET", PATH) for _ in range(5)))
        assert transport.accessor == ACCESSOR
        assert len(fake.asked(endpoints.TOKEN_SELF)) == 1
        await transport.close()


@pytest.mark.parametrize("answer", [status(401, "ACL support disabled"), status(500), body(b"<html>"), silent(0.0)])
async def test_accessor_that_cannot_be_known_hides_no_refusal(answer: Answer) -> None:
    async with FakeConsul() as fake:
        fake.fail(endpoints.TOKEN_SELF, answer)
        fake.fail(PATH, status(403, "Permission denied"))
        transport = Transport(fake.settings)
        with pytest.raises(ConsulForbidden, match="add to the token's policy: node_prefix"):
            await transport.request("GET", PATH)
        await transport.close()


async def _https(authority: Authority, folder: Path, *, ask_client: bool) -> tuple[web.AppRunner, int]:
    certificate, key = authority.server("consul.internal").write(folder, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.write(folder, "ca"))
    context.load_cert_chain(certificate, key)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
    application = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.json_response([])

    application.router.add_get(PATH, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner, runner.addresses[0][1]


async def test_https_checks_ca_and_name_and_shows_the_client_certificate(tmp_path: Path) -> None:
    authority = Authority("Consul CA")
    runner, port = await _https(authority, tmp_path, ask_client=True)
    ca_file = authority.write(tmp_path, "ca")
    certificate, key = authority.client("gateway").write(tmp_path, "client")
    foreign = Authority("Foreign CA").write(tmp_path, "foreign")

    async def works(**options: object) -> bool:
        values = {"ca_file": ca_file, "client_cert": certificate, "client_key": key} | options
        transport = Transport(ConsulSettings(address=f"https://127.0.0.1:{port}", **values))  # type: ignore[arg-type]
        try:
            return (await transport.request("GET", PATH)).status == 200
        except ConsulUnavailable:
            return False
        finally:
            await transport.close()

    assert await works(tls_server_name="consul.internal")
    assert not await works(), "the certificate is for another name"
    assert not await works(tls_server_name="consul.internal", ca_file=foreign)
    assert not await works(tls_server_name="consul.internal", client_cert=None, client_key=None)
    assert await works(verify=False, ca_file=foreign)
    await runner.cleanup()


async def test_tls_files_that_never_worked_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    transport = Transport(ConsulSettings(address="https://127.0.0.1:1", ca_file=tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        await transport.request("GET", PATH)
    await transport.close()


async def test_ca_file_that_turns_bad_leaves_the_old_one_in_force(tmp_path: Path) -> None:
    authority = Authority("Consul CA")
    runner, port = await _https(authority, tmp_path, ask_client=False)
    ca_file = authority.write(tmp_path, "trusted")
    settings = ConsulSettings(address=f"https://127.0.0.1:{port}", ca_file=ca_file, tls_server_name="consul.internal")
    transport = Transport(settings)
    assert (await transport.request("GET", PATH)).status == 200
    ca_file.write_text("garbage")
    assert (await transport.request("GET", PATH)).status == 200
    await transport.close()
    await runner.cleanup()


async def test_closing_leaves_nothing_behind() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with FakeConsul() as fake:
            transport = Transport(fake.settings)
            await transport.request("GET", PATH)
            await transport.close()
            await transport.close()
            del transport
            gc.collect()


async def test_deadline_holds_although_bytes_keep_coming() -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(300):
            await response.write(b" ")
            await asyncio.sleep(0.05)
        return response

    async with FakeConsul() as fake:
        transport = Transport(fake.settings)
        fake.fail(PATH, drip)
        began_s = time.monotonic()
        with pytest.raises(ConsulUnavailable):
            await transport.request("GET", PATH, timeout_s=0.3)
        assert time.monotonic() - began_s < 10
        await transport.close()


async def test_a_refusal_of_a_token_that_was_replaced_meanwhile_is_not_believed(tmp_path: Path) -> None:
    """Consul refuses what it holds for a token as soon as that is deleted."""
    file = tmp_path / "token"
    file.write_text("old")
    async with FakeConsul() as fake:

        async def refused(request: web.Request) -> web.Response:
            file.write_text("the newer one")
            return web.Response(status=403, text="ACL not found")

        fake.values[PATH] = []
        fake.fail(PATH, refused)
        transport = Transport(ConsulSettings(address=fake.address, token_file=file))
        assert (await transport.request("GET", PATH)).status == 200
        assert [each.headers["X-Consul-Token"] for each in fake.requests] == ["old", "the newer one"]
        fake.fail(PATH, status(403, "ACL not found"))
        with pytest.raises(ConsulForbidden):
            await transport.request("GET", PATH)
        assert len(fake.requests) == 3
        await transport.close()
