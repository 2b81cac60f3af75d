from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin.errors import ConfigError, StartError
from plugin.process import runtime_dir
from plugin.process.runtime_dir import RuntimeDirectory, base_directory, gateway_directory


def test_the_operators_choice_comes_first_then_the_systems() -> None:
    environment = {"RUNTIME_DIRECTORY": "/run/one:/run/two", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert base_directory(Path("/chosen"), environment) == Path("/chosen")
    assert base_directory(None, environment) == Path("/run/one")
    assert base_directory(None, {"XDG_RUNTIME_DIR": "/run/user/7"}) == Path("/run/user/7/consul-tgw")


def test_gateways_of_one_host_do_not_share_a_directory() -> None:
    base = Path("/run/x")
    places = {gateway_directory(base, name, address) for name in ("a", "b") for address in ("1.1.1.1:1", "1.1.1.1:2")}
    assert len(places) == 4
    assert gateway_directory(base, "a/../b", "x").parent == base


def test_a_path_too_long_for_a_socket_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match="--runtime-dir"):
        gateway_directory(Path("/" + "x" * 80), "gateway", "1.1.1.1:1")


@pytest.mark.parametrize("length", range(40, 79))
def test_the_readable_part_gives_way_in_long_paths(length: int) -> None:
    directory = gateway_directory(Path("/" + "x" * (length - 1)), "a-gateway-with-a-name", "1.1.1.1:1")
    assert len(str(directory / "worker-4194304.sock")) <= runtime_dir.LONGEST_SOCKET_PATH


def test_it_is_private(tmp_path: Path) -> None:
    held = RuntimeDirectory.claim(tmp_path / "base" / "gw")
    assert (tmp_path / "base" / "gw").stat().st_mode & 0o777 == 0o700
    held.release()


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gw"
    path.mkdir()
    path.chmod(0o755)
    with pytest.raises(StartError, match="chmod 700"):
        RuntimeDirectory.claim(path)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "gw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="belongs to somebody else"):
        RuntimeDirectory.claim(tmp_path / "gw")


def test_one_control_process_at_a_time(tmp_path: Path) -> None:
    held = RuntimeDirectory.claim(tmp_path / "gw")
    with pytest.raises(StartError, match=f"process {os.getpid()} already runs this gateway"):
        RuntimeDirectory.claim(tmp_path / "gw")
    held.release()
    RuntimeDirectory.claim(tmp_path / "gw").release()


def test_the_admin_address_is_found_while_it_runs(tmp_path: Path) -> None:
    held = RuntimeDirectory.claim(tmp_path / "gw")
    held.write_admin_address("127.0.0.1:19090")
    assert runtime_dir.gateway_directories(tmp_path) == [tmp_path / "gw"]
    assert runtime_dir.read_admin_address(tmp_path / "gw") == "127.0.0.1:19090"
    held.release()
    assert runtime_dir.gateway_directories(tmp_path) == []


def test_sockets_are_listed_with_their_pids(tmp_path: Path) -> None:
    held = RuntimeDirectory.claim(tmp_path / "gw")
    held.socket_path(17).touch()
    (held.path / "worker-x.sock").touch()
    assert list(held.socket_paths()) == [(17, held.path / "worker-17.sock")]
    held.release()
