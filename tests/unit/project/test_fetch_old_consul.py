"""Fetching the old Consul through apt: whom it asks, what it believes, and what it says when there is none.

Here ``apt-get`` and ``dpkg-deb`` are scripts of the test's own; the set-up runs the real ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.dev import locate
from scripts import fetch_old_consul as fetching
from scripts.steps import Failed

APT = r"""#!/bin/sh
echo "$@" >> {folder}/asked
case "$*" in
    *indextargets*) printf 'https://other.example/\tOther\tOther\n'
                    printf 'https://debian.example/debian/\tDebian\tDebian\n'
                    printf 'https://other.example/\tOther\tOther\n' ;;
    *update*) grep -h ^URIs: "$(dirname "$3")"/sources/* >> {folder}/updated
              cat "$(dirname "$3")"/sources/* > {folder}/source
              ! grep -q 'other.example' {folder}/source ;;
    *download*) touch consul_{version}+dfsg1_amd64.deb ;;
esac
"""
DPKG = r"""#!/bin/sh
mkdir -p "$3/usr/bin"
printf '#!/bin/sh\necho Consul v{version}\n' > "$3/usr/bin/consul"
chmod +x "$3/usr/bin/consul"
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the two scripts, in front of PATH."""
    write(tmp_path, "apt-get", APT, locate.OLD_CONSUL_VERSION)
    write(tmp_path, "dpkg-deb", DPKG, locate.OLD_CONSUL_VERSION)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(fetching.MIRROR_VARIABLE, raising=False)
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(fetching, "KEYRING", keyring)
    return tmp_path


def write(folder: Path, name: str, text: str, version: str) -> None:
    (folder / name).write_text(text.replace("{folder}", str(folder)).replace("{version}", version))
    (folder / name).chmod(0o755)


def test_the_hosts_debian_mirror_is_asked_first(programs: Path) -> None:
    assert fetching.mirrors() == ["https://debian.example/debian/", "https://other.example/"]


def test_a_chosen_mirror_is_asked_alone(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fetching.MIRROR_VARIABLE, "https://chosen.example/debian")
    assert fetching.mirrors() == ["https://chosen.example/debian"]


def test_it_is_fetched_once(programs: Path) -> None:
    target = programs / "cache" / "consul"
    fetching.fetch_old_consul(target)
    assert locate.program_version(target) == (1, 8, 7)
    asked = (programs / "asked").read_text()
    assert "install" not in asked
    fetching.fetch_old_consul(target)
    assert (programs / "asked").read_text() == asked
    assert [path.name for path in target.parent.iterdir() if path.name != ".lock"] == ["consul"]


def test_only_what_debians_keys_signed_is_believed(programs: Path) -> None:
    fetching.fetch_old_consul(programs / "cache" / "consul")
    assert f"Signed-By: {fetching.KEYRING}" in (programs / "source").read_text().splitlines()


def test_every_mirror_that_fails_is_named(programs: Path) -> None:
    write(programs, "apt-get", APT.replace("! grep -q 'other.example' {folder}/source", "exit 1"), "1.8.7")
    target = programs / "cache" / "consul"
    with pytest.raises(Failed, match=fetching.MIRROR_VARIABLE) as failure:
        fetching.fetch_old_consul(target)
    assert "debian.example" in str(failure.value)
    assert "other.example" in str(failure.value)
    assert not target.exists()


def test_another_version_is_not_taken(programs: Path) -> None:
    write(programs, "dpkg-deb", DPKG, "1.9.0")
    target = programs / "cache" / "consul"
    with pytest.raises(Failed, match=r"holds no Consul 1\.8\.7"):
        fetching.fetch_old_consul(target)
    assert not target.exists()


def test_without_the_archives_keys_nothing_is_asked(programs: Path) -> None:
    fetching.KEYRING.unlink()
    with pytest.raises(Failed, match="debian-archive-keyring"):
        fetching.fetch_old_consul(programs / "cache" / "consul")
    assert not (programs / "asked").exists()


def test_without_apt_it_says_so(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs / "nothing"))
    with pytest.raises(Failed, match="no apt-get here"):
        fetching.fetch_old_consul(programs / "cache" / "consul")
