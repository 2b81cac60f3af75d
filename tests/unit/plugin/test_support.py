from __future__ import annotations

import os
import tarfile
from pathlib import Path

import msgspec
import pytest

from plugin.dev.pki import Authority
from plugin.errors import ConfigError, GatewayError
from plugin.support.bundle import Content, Part, gather, write
from plugin.support.processes import process_facts
from plugin.support.redaction import redacted, secrets_of
from tests.support.secrecy import Output

PASSWORD = "not-a-good-one"
TOKEN = "-".join(("1b2c3d4e", "0000", "1111", "2222", "333344445555"))


def test_secrets_are_those_of_the_environment_and_of_files(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file-for-nobody\n")
    environment = {
        "CONSUL_HTTP_TOKEN": TOKEN,
        "CONSUL_HTTP_AUTH": "somebody:a long password",
        "CONSUL_HTTP_TOKEN_FILE": str(file),
        "CONSUL_TGW_ADMIN_TOKEN": "short",
        "HOME": "not-a-secret-at-all",
    }
    found = secrets_of(environment, [tmp_path / "missing"])
    assert found == {TOKEN.encode(), b"somebody:a long password", b"a long password", b"from-a-file-for-nobody"}


def test_whatever_is_secret_is_taken_out() -> None:
    pair = Authority("CA").server("a.example")
    told = {
        "key": pair.private_key_pem,
        "token": TOKEN,
        "quoted": 'with "quotes" in it',
        "url": f"http://u:{PASSWORD}@host/x",
    }
    data = msgspec.json.encode(told) + b"\nAuthorization: Bearer abcdef0123456789\n" + pair.private_key_pem.encode()
    clean = redacted(data, {TOKEN.encode(), b'with "quotes" in it'})
    output = Output()
    output.learn(TOKEN)
    output.learn(pair.private_key_pem.splitlines()[1])
    assert output.feed("it", clean) == []
    for secret in (b"quotes", PASSWORD.encode(), b"abcdef0123456789", b"PRIVATE KEY"):
        assert secret not in clean
    assert b"http://<redacted>@host/x" in clean
    assert redacted(pair.certificate_pem.encode(), ()) == pair.certificate_pem.encode()
    assert b"MII" not in redacted(pair.private_key_pem.encode()[:200], ())


def test_a_part_that_cannot_be_had_costs_only_itself(tmp_path: Path) -> None:
    def refuse() -> bytes:
        raise GatewayError(f"nobody answers {TOKEN}")

    every = iter([Part("a.txt", "a thing", lambda: b"fine"), Part("b.txt", "another", refuse)])
    begun: list[str] = []
    found = gather(every, frozenset({TOKEN.encode()}), begun=begun.append)
    assert begun == ["a.txt", "b.txt"]
    good, bad = found
    assert good == Content("a.txt", "a thing", 4)
    assert (bad.problem, found[bad]) == ("nobody answers <redacted>", b"not there: nobody answers <redacted>\n")
    path = tmp_path / "bundle.tar.gz"
    write(found, path, 1_700_000_000.0)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["bundle/README.txt", "bundle/a.txt", "bundle/b.txt"]
        readme = archive.extractfile("bundle/README.txt")
        assert readme is not None
        assert b"a.txt                a thing" in readme.read()
    with pytest.raises(ConfigError, match="is there already"):
        write(found, path, 0.0)
    with pytest.raises(ConfigError, match="cannot write"):
        write(found, tmp_path / "no" / "where.tar.gz", 0.0)


def test_processes_are_told_of_by_the_kernel() -> None:
    own = process_facts("own", os.getpid())
    assert own.problem == ""
    assert own.descriptors
    assert own.status["VmRSS"].endswith("kB")
    assert len(own.limits["Max open files"].split()) == 2
    assert own.cpu_s > 0
    assert process_facts("gone", 2**22 - 1).problem
