"""Workers run compiled modules, say so, and the two forms do the same."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from proxy import compiled
from proxy.messages import Hello
from tests.support.eventually import SCALE
from tests.support.worker import running_worker

ROOT = Path(__file__).resolve().parents[2]


def test_this_machine_has_them() -> None:
    code = compiled.find({**os.environ, compiled.CODE: "auto"})
    assert code.folder is not None, f"{code}: run `make compiled`"


async def test_both_forms_answer_alike() -> None:
    own, sources = await asyncio.gather(_answers("compiled"), _answers("interpreted"))
    assert own.pop("code").startswith("compiled (mypyc ")
    assert sources.pop("code") == "interpreted (as long as nothing else is asked for)"
    assert (own.pop("extension"), sources.pop("extension")) == ("True", "False")
    assert len(own) > 500
    assert own == sources


async def _answers(code: str) -> dict[str, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.compiled.answers"),
        cwd=ROOT,
        env={**os.environ, compiled.CODE: code},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(child.communicate(), 120 * SCALE)
    assert child.returncode == 0, errors.decode()
    answers: dict[str, str] = json.loads(output)
    return answers


@pytest.mark.parametrize("code", ["compiled", "interpreted"])
async def test_a_worker_says_what_it_runs(code: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        async with running_worker(environment={compiled.CODE: code}, log=file) as worker:
            (hello,) = [frame for frame in worker.frames if isinstance(frame, Hello)]
            assert worker.process is not None
            mapped = _mapped(worker.process.pid)
    assert hello.code.startswith(f"{code} (")
    assert (compiled.shared() in mapped) is (code == "compiled")
    assert f"worker 1 runs {hello.code}" in log.read_text()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({compiled.CODE: "compiled", compiled.CACHE: "/nowhere"}, "nothing was compiled on this machine"),
        ({compiled.CODE: "quick"}, "CONSUL_TGW_CODE=quick is none of interpreted, auto and compiled"),
    ],
)
async def test_a_worker_does_not_start_as_something_else_than_asked_for(environment: dict[str, str], said: str) -> None:
    ours, control = socket.socketpair()
    with ours, control:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "--control-fd", str(control.fileno())),
            cwd=ROOT,
            env={**os.environ, **environment},
            pass_fds=(control.fileno(),),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(child.communicate(), 60 * SCALE)
    assert child.returncode == 2
    assert said in errors.decode()


def _mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()
