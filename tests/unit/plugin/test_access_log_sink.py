from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugin.access_log_sink import AccessLogSink
from plugin.consul.api import AccessLogs
from plugin.errors import StartError


def to_file(path: Path) -> AccessLogs:
    return AccessLogs(enabled=True, type="file", path=str(path))


def recorded(chosen: str | None) -> tuple[AccessLogSink, list[int]]:
    sink, redirected = AccessLogSink(chosen), list[int]()
    sink.redirect = redirected.append
    return sink, redirected


@pytest.mark.parametrize(("chosen", "descriptor"), [(None, 1), ("-", 1), ("off", -1)])
def test_the_start(chosen: str | None, descriptor: int) -> None:
    assert AccessLogSink(chosen).descriptor == descriptor


def test_a_chosen_file_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="see --access-log"):
        AccessLogSink(str(tmp_path / "absent" / "x.log"))


def test_without_a_choice_proxy_defaults_are_followed(tmp_path: Path) -> None:
    sink, redirected = recorded(None)
    sink.take(None)
    sink.take(AccessLogs(enabled=False, type="file", path=str(tmp_path / "x.log")))
    assert redirected == []
    sink.take(AccessLogs(enabled=True, type="stderr"))
    sink.take(to_file(tmp_path / "x.log"))
    file = sink.descriptor
    os.write(file, b"line\n")
    assert (tmp_path / "x.log").read_bytes() == b"line\n"
    sink.take(None)
    assert redirected == [2, file, 1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_the_command_line_has_the_last_word(tmp_path: Path) -> None:
    sink, redirected = recorded("off")
    sink.take(to_file(tmp_path / "x.log"))
    assert (redirected, sink.descriptor) == ([], -1)


def test_a_file_that_cannot_be_opened_leaves_the_former_one(tmp_path: Path) -> None:
    sink, redirected = recorded(None)
    sink.take(to_file(tmp_path / "absent" / "x.log"))
    assert "No such file or directory; lines go on to where they went" in sink.problem
    assert redirected == []
    (tmp_path / "absent").mkdir()
    sink.take(to_file(tmp_path / "absent" / "x.log"))
    assert sink.problem == ""
    assert len(redirected) == 1
    os.close(sink.descriptor)


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    sink, redirected = recorded(str(path))
    path.rename(tmp_path / "x.log.1")
    sink.reopen()
    os.write(sink.descriptor, b"new\n")
    assert path.read_bytes() == b"new\n"
    assert redirected == [sink.descriptor]
    os.close(sink.descriptor)


def test_a_pipe_that_nobody_reads_does_not_hold_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    sink, _ = recorded(None)
    sink.take(to_file(tmp_path / "pipe"))
    assert "cannot be opened" in sink.problem


def test_a_file_that_is_gone_at_two_looks_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    sink, redirected = recorded(str(path))
    assert not sink.moved()
    path.rename(tmp_path / "x.log.1")
    assert not sink.moved(), "a rotation may be under way"
    assert sink.moved()
    sink.reopen()
    assert not sink.moved()
    os.write(redirected[-1], b"line\n")
    assert path.read_bytes() == b"line\n"
    path.unlink()
    path.write_bytes(b"somebody else's\n")
    assert not sink.moved()
    assert sink.moved(), "another file at its place is not the one that we write"


def test_standard_streams_do_not_move() -> None:
    sink, _ = recorded("-")
    assert not sink.moved()
    assert not sink.moved()
