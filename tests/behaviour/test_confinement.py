"""What a worker can no longer do once it serves, tried from inside a real one and from beside it."""

from __future__ import annotations

import json
import pwd
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.dev.external import ExternalService, echo
from plugin.process.tasks import spawn
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, connected, sni
from tests.support.worker import WorkerProcess, running_worker

NOBODY = pwd.getpwnam("nobody")
AS_NOBODY = (f"--user={NOBODY.pw_uid}", f"--group={NOBODY.pw_gid}")
INSIDE = """
import errno, json, os, signal, socket

report = os.open({report!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
parent = os.getppid()

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def intrude(*_):
    tried = {{
        "read": attempt(lambda: open("/etc/passwd")),
        "list": attempt(lambda: os.listdir("/")),
        "create": attempt(lambda: open({folder!r} + "/made", "w")),
        "remove": attempt(lambda: os.unlink({report!r})),
        "truncate": attempt(lambda: os.truncate({report!r}, 0)),
        "run": attempt(lambda: os.execv("/bin/true", ["true"])),
        "listen": attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
        "signal": attempt(lambda: os.kill(parent, 0)),
        "abstract": attempt(lambda: socket.socket(socket.AF_UNIX).connect({abstract!r})),
    }}
    os.write(report, json.dumps(tried).encode())

signal.signal(signal.SIGUSR1, intrude)
"""
MAY_READ = "import sys; open(f'/proc/{sys.argv[1]}/environ').read(); open(f'/proc/{sys.argv[1]}/mem')"


def abstract_name(folder: Path) -> str:
    """Of a Unix socket that is no file."""
    return f"\0consul-tgw-{folder}"


@pytest.fixture
def intruder(tmp_path: Path) -> Path:
    """On the import path of a worker: tries what is forbidden when the worker gets SIGUSR1."""
    folder = tmp_path / "intruder"
    folder.mkdir()
    code = INSIDE.format(report=str(tmp_path / "report"), folder=str(tmp_path), abstract=abstract_name(tmp_path))
    (folder / "sitecustomize.py").write_text(code)
    return folder


def statuses_of(pid: int) -> list[dict[str, str]]:
    """Of every thread of the process."""
    texts = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return [dict(re.findall(r"^(\w+):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)) for text in texts]


def core_limit_of(pid: int) -> list[str]:
    (line,) = re.findall(r"^Max core file size +(.*)$", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    return str(line).split()[:2]


async def test_a_worker_has_no_files_no_programs_no_ports_and_no_signals(
    mesh: HandMadeMesh, intruder: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    environment = {"PYTHONPATH": str(intruder)}
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(abstract_name(tmp_path))
    abstract.listen()
    async with running_worker(environment=environment) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        assert worker.process is not None
        worker.process.send_signal(signal.SIGUSR1)
        tried = await eventually(lambda: report.exists() and report.read_bytes())
        refused = dict.fromkeys(("read", "list", "create", "remove", "truncate", "run", "listen"), "EACCES")
        assert json.loads(tried) == {**refused, "signal": "EPERM", "abstract": "EPERM"}
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert await client.exchange(b"served all the same") == b"served all the same"
        abstract.close()
        statuses = statuses_of(worker.process.pid)
        assert len(statuses) > 1
        assert {status["NoNewPrivs"] for status in statuses} == {"1"}


async def test_root_becomes_the_user_it_is_told_with_no_right_left(mesh: HandMadeMesh, tmp_path: Path) -> None:
    door = tmp_path / "worker.sock"
    async with running_worker(arguments=AS_NOBODY, handover_path=door) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert await client.exchange(b"as nobody") == b"as nobody"
        assert worker.process is not None
        for status in statuses_of(worker.process.pid):
            assert set(status["Uid"].split()) == {str(NOBODY.pw_uid)}
            assert set(status["Gid"].split()) == {str(NOBODY.pw_gid)}
            assert status["Groups"] == ""
            assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        assert core_limit_of(worker.process.pid) == ["0", "0"]


@pytest.mark.parametrize("debuggable", [False, True])
async def test_its_memory_is_closed_to_its_own_user_unless_told(mesh: HandMadeMesh, debuggable: bool) -> None:
    arguments = (*AS_NOBODY, *(["--debuggable"] if debuggable else []))
    async with running_worker(arguments=arguments) as worker:
        await worker.update(mesh=mesh.settings())
        assert may_read(worker, "root")
        assert may_read(worker, "nobody") is debuggable


def may_read(worker: WorkerProcess, user: str) -> bool:
    assert worker.process is not None
    command = [sys.base_prefix + "/bin/python3", "-I", "-c", MAY_READ, str(worker.process.pid)]
    asked = subprocess.run(
        command, user=user, group=pwd.getpwnam(user).pw_gid, extra_groups=[], cwd="/", check=False, capture_output=True
    )
    assert asked.returncode == 0 or b"Permission" in asked.stderr, asked.stderr
    return asked.returncode == 0


async def test_a_user_who_cannot_be_had_means_no_worker(mesh: HandMadeMesh, tmp_path: Path) -> None:
    # The kernel takes this number for "leave it as it is".
    with (tmp_path / "log").open("wb") as log:
        worker = WorkerProcess()
        starting = spawn(worker.start(arguments=("--user=4294967295", "--group=1"), log=log), name="start")
        try:
            await eventually(lambda: worker.process is not None and worker.process.returncode == 77)
        finally:
            starting.cancel()
            await worker.stop()
    assert "worker.not_confined: cannot become user 4294967295" in (tmp_path / "log").read_text()
