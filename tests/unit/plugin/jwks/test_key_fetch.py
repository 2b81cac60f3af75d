"""Fetching a key set: over verified TLS, with limits, carrying nothing of ours and following nobody."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from plugin.errors import FileUnreadable, KeysUnavailable
from plugin.facts import Fact
from plugin.jwks.fetch import KeyFetcher
from plugin.jwks.provider import RemoteKeys
from tests.support.key_server import KeyServer, SigningKey, key_set, kids
from tests.support.ports import deaf

KEY = SigningKey("one")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[KeyServer]:
    async with KeyServer(tmp_path, key_set(KEY)) as server:
        yield server


async def fetched(source: RemoteKeys, files: dict[str, Fact[bytes]] | None = None) -> str:
    async with KeyFetcher(lambda path: (files or {}).get(path, Fact())) as fetcher:
        return await fetcher.fetch(source)


async def refused(source: RemoteKeys, files: dict[str, Fact[bytes]] | None = None) -> str:
    with pytest.raises(KeysUnavailable) as info:
        await fetched(source, files)
    return str(info.value)


def trusting(server: KeyServer) -> RemoteKeys:
    return RemoteKeys(server.uri, ca_pem=server.authority.certificate_pem)


async def test_keys_come_and_nothing_of_ours_goes(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.headers["Set-Cookie"] = "a=b"
    async with KeyFetcher(lambda path: Fact()) as fetcher:
        for _ in range(2):
            assert kids(await fetcher.fetch(trusting(server))) == ["one"]
    for request in server.asked:
        assert request.method == "GET"
        sent = {name.lower() for name in request.headers}
        assert sent == {"host", "accept", "accept-encoding", "user-agent"} | ({"connection"} & sent)


async def test_plain_http_where_the_entry_says_so(tmp_path: Path) -> None:
    async with KeyServer(tmp_path, key_set(KEY), tls=False) as server:
        assert kids(await fetched(RemoteKeys(server.uri))) == ["one"]


async def test_the_hosts_own_roots_are_asked_for_nothing_else(server: KeyServer) -> None:
    assert "certificate" in await refused(RemoteKeys(server.uri))
    assert server.asked == []


async def test_the_name_in_the_certificate_counts(server: KeyServer) -> None:
    source = trusting(server)
    elsewhere = msgspec.structs.replace(source, uri=source.uri.replace("127.0.0.1", "localhost"))
    text = await refused(elsewhere)
    assert "certificate" in text
    assert "TrustedCA" in text


async def test_roots_of_a_file_and_of_a_variable(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = server.authority.certificate_pem
    monkeypatch.setenv("PROVIDER_CA", pem)
    assert kids(await fetched(RemoteKeys(server.uri, ca_variable="PROVIDER_CA"))) == ["one"]
    in_file = RemoteKeys(server.uri, ca_file="/ca.pem")
    assert kids(await fetched(in_file, {"/ca.pem": Fact(pem.encode(), True)})) == ["one"]
    missing = Fact[bytes]().failed(FileUnreadable("/ca.pem does not exist"))
    assert "/ca.pem does not exist" in await refused(in_file, {"/ca.pem": missing})
    assert "NO_SUCH of TrustedCA is not set" in await refused(RemoteKeys(server.uri, ca_variable="NO_SUCH"))


@pytest.mark.parametrize("pem", ["x", "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n", "ä"])
async def test_roots_that_are_none_trust_nobody(server: KeyServer, pem: str) -> None:
    assert "holds no certificate" in await refused(RemoteKeys(server.uri, ca_pem=pem))
    assert server.asked == []


async def test_a_redirect_is_not_followed(server: KeyServer) -> None:
    server.status, server.headers["Location"] = 302, "http://127.0.0.1:1/"
    assert "redirect (302)" in await refused(trusting(server))
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [204, 401, 404, 500])
async def test_other_answers_are_not_quoted(server: KeyServer, status: int) -> None:
    server.status, server.content = status, b"" if status == 204 else b"a secret page"
    text = await refused(trusting(server))
    assert f"status {status}" in text
    assert "secret" not in text


async def test_something_else_than_a_key_set_is_not_quoted(server: KeyServer) -> None:
    server.content = b'{"password": "secret"}'
    text = await refused(trusting(server))
    assert "no JSON Web Key Set" in text
    assert "secret" not in text


async def test_a_huge_answer_is_left(server: KeyServer) -> None:
    server.content = b" " * (8 << 20)
    assert "more than 1048576 bytes" in await refused(trusting(server))


async def test_a_compressed_answer_is_not_unpacked(server: KeyServer) -> None:
    server.headers["Content-Encoding"] = "gzip"
    assert "compresses" in await refused(trusting(server))


async def test_silence_and_refusal_end_in_time() -> None:
    with deaf("127.0.0.1") as port:
        text = await refused(RemoteKeys(f"http://127.0.0.1:{port}/", timeout_s=0.2))
        assert "no answer within 0.2 s" in text
        text = await refused(RemoteKeys(f"http://127.0.0.1:{port}/", timeout_s=60.0, connect_timeout_s=0.2))
        assert "no connection within 0.2 s" in text
    assert "cannot be had" in await refused(RemoteKeys("http://127.0.0.1:1/keys"))


async def test_what_may_be_a_secret_in_the_address_is_not_told() -> None:
    text = await refused(RemoteKeys("http://127.0.0.1:1/keys?key=secret"))
    assert "http://127.0.0.1:1/keys cannot be had" in text
    assert "secret" not in text


async def test_a_host_that_does_not_exist(server: KeyServer) -> None:
    assert "cannot be had" in await refused(RemoteKeys("https://no-such-host.invalid/keys"))


async def test_the_same_fault_has_the_same_text(server: KeyServer) -> None:
    """A new text is a new line in the log, and a new state for the workers."""
    untrusted, absent = RemoteKeys(server.uri), RemoteKeys("https://127.0.0.1:1/keys", ca_pem=trusting(server).ca_pem)
    for source in (untrusted, absent, RemoteKeys("https://no-such-host.invalid/keys")):
        assert await refused(source) == await refused(source)
        assert "0x" not in await refused(source)


def test_the_hosts_own_roots_verify_names() -> None:
    context = ssl.create_default_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
