"""Examples for schedulers and tools around them: they can be parsed, and every flag is one that `run` really has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import hcl2
import pytest
import yaml  # type: ignore[import-untyped]
from hcl2.utils import SerializationOptions

from plugin.cli import commands
from plugin.cli.run import gateway_settings, run
from plugin.settings import GatewaySettings

ROOT = Path(__file__).resolve().parents[4]
PACKAGING = ROOT / "packaging"
NOMAD = PACKAGING / "nomad" / "consul-tgw.nomad.hcl"
KUBERNETES = PACKAGING / "kubernetes" / "consul-tgw.yaml"
LOGROTATE = PACKAGING / "logrotate" / "consul-tgw"
SOCKET = PACKAGING / "systemd" / "consul-tgw.socket"
SERVICE = PACKAGING / "systemd" / "consul-tgw.service"
OF_OTHERS = {
    "--kill-whom", "--signal", "--from-literal", "--read-only", "--tmpfs", "--cap-drop", "--network", "--without-pip",
    "--python", "--require-hashes", "--no-cache-dir", "--quiet", "--disable-pip-version-check", "--no-compile",
    "--no-index", "--no-deps", "--target", "--directory", "--mode", "--owner", "--group", "--from",
    "--invalidation-mode",
}  # fmt: skip
"""Flags of systemctl, kubectl, podman, pip and install."""
LOGROTATE_WORDS = {
    "su", "daily", "weekly", "rotate", "maxsize", "missingok", "notifempty", "nocreate", "compress", "delaycompress",
    "dateext", "postrotate", "endscript",
}  # fmt: skip
"""Directives of logrotate(8)."""


def every_flag() -> set[str]:
    """Of any command, at any depth of the tree."""

    def walk(command: click.Command) -> Iterator[str]:
        context = click.Context(command)
        for parameter in command.get_params(context):
            yield from (*parameter.opts, *parameter.secondary_opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                yield from walk(child)

    return set(walk(commands))


def settings(arguments: list[str]) -> GatewaySettings:
    """As `consul-tgw run` would read them. :raises click.ClickException: when it would not."""
    return gateway_settings(run.make_context("run", arguments).params)


@pytest.mark.parametrize("path", [path for path in PACKAGING.rglob("*") if path.is_file()], ids=lambda path: path.name)
def test_every_flag_is_one_of_ours_or_of_a_known_tool(path: Path) -> None:
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", path.read_text()))
    assert found - OF_OTHERS <= every_flag()


def documents() -> dict[str, dict[str, Any]]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


def container() -> dict[str, Any]:
    [only] = documents()["Deployment"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_kubernetes_runs_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUL_TGW_ADMIN_TOKEN", "a-secret-of-enough-length")
    values = {"POD_IP": "10.1.2.3", "POD_NAME": "consul-tgw-0", "HOST_IP": "10.0.0.1"}
    environment = {one["name"]: one for one in container()["env"]}
    used = set(re.findall(r"\$\((\w+)\)", str(container())))
    assert used == values.keys() <= environment.keys()
    arguments = [re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], one) for one in container()["args"]]
    read = settings(arguments)
    assert (read.service_id, str(read.host_port), read.admin_address) == ("consul-tgw-0", "10.1.2.3:8443", "10.1.2.3")
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    assert ports == {"mesh": read.port, "admin": read.admin_port}
    spec = documents()["Deployment"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > read.drain_delay_s + read.drain_timeout_s + read.drain_window_s
    [mount], [volume] = container()["volumeMounts"], spec["volumes"]
    assert mount["name"] == volume["name"]
    assert str(read.runtime_dir).startswith(mount["mountPath"] + "/")


def test_kubernetes_fits_together() -> None:
    kinds = documents()
    assert kinds.keys() == {"ServiceAccount", "Deployment", "PodDisruptionBudget"}
    spec = kinds["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert spec["template"]["spec"]["serviceAccountName"] == kinds["ServiceAccount"]["metadata"]["name"]
    ports = {one["name"] for one in container()["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        ask = container()[probe]["httpGet"]
        assert ask["port"] in ports
        assert ask["path"] == ("/ready" if probe == "readinessProbe" else "/health")
    secure = container()["securityContext"]
    assert secure["readOnlyRootFilesystem"]
    assert not secure["allowPrivilegeEscalation"]
    assert secure["capabilities"] == {"drop": ["ALL"]}
    assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"]


def nomad() -> dict[str, Any]:
    found: dict[str, Any] = hcl2.loads(
        NOMAD.read_text(), serialization_options=SerializationOptions(with_comments=False)
    )
    return found


def unquoted(text: str) -> str:
    return text.strip('"')


def test_nomad_runs_a_gateway() -> None:
    [job] = [one['"consul-tgw"'] for one in nomad()["job"]]
    [group] = [one['"gateway"'] for one in job["group"]]
    [task] = [one['"gateway"'] for one in group["task"]]
    [config] = task["config"]
    variables = {name: body for one in nomad()["variable"] for name, body in one.items()}
    values = {unquoted(name): unquoted(str(body["default"])) for name, body in variables.items()}
    places = {"NOMAD_TASK_DIR": "/local", "NOMAD_ALLOC_DIR": "/alloc", "NOMAD_SECRETS_DIR": "/secrets"}

    def filled(text: str) -> str:
        known = {f"var.{name}": value for name, value in values.items()} | places
        return re.sub(r"\$\{([\w.]+)\}", lambda match: known[match[1]], unquoted(text))

    read = settings([filled(one) for one in config["args"]])
    assert (read.service, str(read.host_port)) == ("terminating-gateway", "10.0.0.5:8443")
    assert str(read.audit_log) == "/alloc/data/audit.log"
    seconds = int(unquoted(task["kill_timeout"]).removesuffix("s"))
    assert seconds > read.drain_delay_s + read.drain_timeout_s + read.drain_window_s
    [network] = group["network"]
    [admin] = [one['"admin"'] for one in network["port"]]
    assert admin["static"] == read.admin_port
    assert unquoted(task["user"]) == "65532:65532"
    assert config["readonly_rootfs"] is True
    assert '"/ready"' in str(task["service"])


def test_logrotate_knows_every_word() -> None:
    text = "\n".join(line for line in LOGROTATE.read_text().splitlines() if not line.lstrip().startswith("#"))
    blocks = re.findall(r"^(/\S+) \{\n(.*?)^\}$", text, re.DOTALL | re.MULTILINE)
    assert [path for path, _ in blocks] == ["/var/log/consul-tgw/access.log", "/var/log/consul-tgw/audit.log"]
    assert "LogsDirectory=consul-tgw" in SERVICE.read_text()
    for _, body in blocks:
        outside = re.sub(r"postrotate\n.*?endscript", "postrotate\nendscript", body, flags=re.DOTALL)
        words = {line.split()[0] for line in outside.splitlines() if line.strip()}
        assert words <= LOGROTATE_WORDS
        # The gateway makes the new file with its own mode, and may write to the former one for a moment.
        assert {"nocreate", "delaycompress", "missingok"} <= words
        assert f"--signal=HUP {SERVICE.name}" in body


def test_the_socket_unit_has_one_socket_for_each_worker() -> None:
    text = SOCKET.read_text()
    streams = re.findall(r"^ListenStream=(\S+)$", text, re.MULTILINE)
    assert len(streams) >= 2
    assert len(set(streams)) == 1
    for line in ("ReusePort=yes", f"Service={SERVICE.name}", "WantedBy=sockets.target"):
        assert f"\n{line}\n" in text
    assert f"--address {streams[0]}" in SERVICE.read_text()
