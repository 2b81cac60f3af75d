"""No secret in the tree, and the reader of our programs' output finds one when there is one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.secrecy import Output

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "0f5f5a5e-0000-4000-8000-5ca1ab1e0000"
# Written so that this file does not hold what it looks for.
KEY_LINE = "-----BEGIN EC " + "PRIVATE KEY-----"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
IN_THE_TREE = {
    "private key": re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\\nr]+[A-Za-z0-9+/=\s\\]{100,}"),
    "token": re.compile(rb"(?i)(?:token|secret)(?:_?id)?[\"']?\s*[:=]\s*[\"']?(" + UUID.encode() + rb")"),
    "cloud key": re.compile(rb"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|hvs\.[A-Za-z0-9_-]{24,})\b"),
    "password in an address": re.compile(rb"https?://[^/\s:@\"'{}<>]+:[^/\s@\"'{}<>]{6,}@"),
}
MADE_UP = {TOKEN.encode()}
CORPUS = "fuzz/corpus/"
"""Keys there were made for it and are used nowhere: parsers of keys want some."""


def test_a_private_key_is_found_even_when_cut_in_two(tmp_path: Path) -> None:
    output, log = Output(), tmp_path / "log"
    log.write_bytes(b"from before: nothing\n")
    output.follow("gateway", log)
    with log.open("ab") as file:
        file.write(b"quiet\n" + KEY_LINE[:20].encode())
        file.flush()
        assert output.check() == []
        file.write(KEY_LINE[20:].encode() + b"\n")
    assert output.check() == ["gateway printed a private key"]
    assert output.bytes_read == len(b"quiet\n" + KEY_LINE.encode() + b"\n")


@pytest.mark.parametrize("shown", [f"X-Consul-Token: {TOKEN}", f'{{"token":"{TOKEN}"}}', f"a?token={TOKEN}&b"])
def test_a_known_token_is_found_and_not_repeated(shown: str) -> None:
    output = Output()
    output.learn_environment({"CONSUL_HTTP_TOKEN": TOKEN, "CONSUL_HTTP_AUTH": "operator:hunter2hunter2"})
    assert output.feed("check", b"nothing of interest") == []
    assert output.feed("status", shown.encode()) == [f"status printed a secret of {len(TOKEN)} characters"]
    assert output.feed("run", b"401 for hunter2hunter2") == ["run printed a secret of 14 characters"]


def test_a_token_file_is_known_and_a_late_file_is_read(tmp_path: Path) -> None:
    output, late, file = Output(), tmp_path / "access.log", tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    output.learn_environment({"CONSUL_HTTP_TOKEN_FILE": str(file)})
    output.follow_later("access log", late)
    assert output.check() == []
    late.write_text(TOKEN)
    assert output.check() == [f"access log printed a secret of {len(TOKEN)} characters"]
    assert output.silent() == []


def test_who_printed_nothing_is_named(tmp_path: Path) -> None:
    output = Output()
    (tmp_path / "log").touch()
    output.follow("mute gateway", tmp_path / "log")
    assert output.check() == []
    assert output.silent() == ["mute gateway"]


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_secret_is_in_the_tree() -> None:
    names = [name for name in tracked() if not name.startswith(CORPUS)]
    assert len(names) > 300
    found = []
    for name in names:
        content = (ROOT / name).read_bytes()
        for kind, pattern in IN_THE_TREE.items():
            hits = [hit for hit in pattern.findall(content) if hit not in MADE_UP]
            if hits:
                found.append((name, kind))
    assert found == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("private key", KEY_LINE + "\n" + "MHcCAQEE" * 20),
        ("token", f'CONSUL_HTTP_TOKEN="{TOKEN}"'),
        ("cloud key", "AKIA" + "ABCDEFGHIJKLMNOP"),
        ("password in an address", "http://" + "operator:hunter2hunter2" + "@consul.example"),
    ],
)
def test_what_is_looked_for_in_the_tree_would_be_found(kind: str, text: str) -> None:
    assert IN_THE_TREE[kind].search(text.encode())
