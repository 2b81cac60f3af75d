"""Programs are found by version, in the promised order, and their absence names the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin.dev import locate
from plugin.errors import StartError


def program(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{path.name} v{version}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def path_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on PATH; the cache is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("CONSUL_TGW_CACHE", str(tmp_path / "cache"))
    return folder


def test_cache_is_where_the_variables_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONSUL_TGW_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert locate.cache_dir() == tmp_path / "consul-tgw"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate.cache_dir() == tmp_path / ".cache" / "consul-tgw"
    monkeypatch.setenv("CONSUL_TGW_CACHE", str(tmp_path / "chosen"))
    assert locate.cache_dir() == tmp_path / "chosen"


def test_consul_on_path_comes_first_when_its_version_fits(path_dir: Path) -> None:
    program(locate.built_consul(), locate.CONSUL_VERSION)
    on_path = program(path_dir / "consul", "1.21.5")
    assert locate.consul() == on_path


@pytest.mark.parametrize("version", ["1.20.9", "1.22.0", "2.21.0", "unknown"])
def test_consul_of_another_line_on_path_is_passed_over(path_dir: Path, version: str) -> None:
    program(path_dir / "consul", version)
    built = program(locate.built_consul(), locate.CONSUL_VERSION)
    assert locate.consul() == built


def test_missing_consul_names_the_remedy(path_dir: Path) -> None:
    with pytest.raises(StartError, match="make setup"):
        locate.consul()


@pytest.mark.parametrize("version", ["1.36.0", "1.40.1", "2.0.0"])
def test_envoy_on_path_comes_first_when_it_is_new_enough(path_dir: Path, version: str) -> None:
    on_path = program(path_dir / "envoy", version)
    assert locate.envoy() == on_path


def test_old_envoy_on_path_is_passed_over(path_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path / "venv"))
    program(path_dir / "envoy", "1.35.9")
    with pytest.raises(StartError, match=r"Envoy 1\.36.*make setup"):
        locate.envoy()
    beside = program(tmp_path / "venv" / "bin" / "envoy", "1.36.0")
    assert locate.envoy() == beside


def test_program_that_cannot_run_has_no_version(tmp_path: Path) -> None:
    assert locate.program_version(tmp_path / "absent") is None
    broken = tmp_path / "broken"
    broken.write_text("not a program")
    assert locate.program_version(broken) is None


def test_postgres_is_one_folder_with_all_that_is_needed() -> None:
    folder = locate.postgres_bin()
    assert all((folder / name).exists() for name in ("initdb", "postgres", "psql"))


def test_the_old_consul_is_the_one_that_set_up_fetched(path_dir: Path) -> None:
    program(path_dir / "consul", locate.OLD_CONSUL_VERSION)
    with pytest.raises(StartError, match="make setup"):
        locate.old_consul()
    fetched = program(locate.unpacked_old_consul(), locate.OLD_CONSUL_VERSION)
    assert locate.old_consul() == fetched


def test_h2spec_is_the_one_that_set_up_built(path_dir: Path) -> None:
    with pytest.raises(StartError, match="make setup"):
        locate.h2spec()
    built = program(locate.built_h2spec(), locate.H2SPEC_VERSION)
    assert locate.h2spec() == built


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_the_browser_goes_by_several_names(path_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(locate, "_SERVERS", str(path_dir))
    with pytest.raises(StartError, match="install `chromium`"):
        locate.chromium()
    found = program(path_dir / name, "1.2.3")
    assert locate.chromium() == found


def test_servers_are_found_although_they_are_not_on_path(path_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = path_dir.parent / "sbin"
    monkeypatch.setattr(locate, "_SERVERS", str(elsewhere))
    with pytest.raises(StartError, match="install `nginx-light`"):
        locate.nginx()
    found = program(elsewhere / "nginx", "1.22.1")
    assert locate.nginx() == found
