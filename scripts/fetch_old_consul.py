"""Brings an old Consul as a Debian package of an older suite, without installing anything. Standard library only.

apt does the work, with a configuration of its own that changes nothing of the host's: it takes the Debian mirrors from
the host's sources, knows no suite but the old one, and believes nothing that Debian's archive keys have not signed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from plugin.dev import locate
from scripts.steps import Failed, run, say

SUITE = "bullseye"
"""The Debian release that carries this Consul."""
MIRROR_VARIABLE = "CONSUL_TGW_DEBIAN_MIRROR"
"""Names a mirror that is asked instead of the host's, for when those no longer carry the suite."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_FIELDS = "$(REPO_URI)\t$(ORIGIN)\t$(LABEL)"

# Hooks are the host's business: they would clean its caches and tell its desktop about packages.
_CONFIGURATION = """\
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{folder}/sources";
Acquire::Languages "none";
Acquire::Retries "2";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""

_SOURCE = """\
Types: deb
URIs: {mirror}
Suites: {suite}
Components: main
Targets: Packages
Signed-By: {keyring}
"""


def fetch_old_consul(target: Path) -> None:
    """Put the program at ``target``; two of these for the same target wait for each other.

    :raises Failed: when it cannot be had: with what was tried, and the remedy.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(target, os.X_OK):
            _fetch(target)


def _fetch(target: Path) -> None:
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise Failed(_explain(f"it comes as a Debian package, and there is no {program} here"))
    if not KEYRING.exists():
        raise Failed(_explain(f"{KEYRING} is missing: install debian-archive-keyring"))
    tried = []
    for mirror in mirrors():
        say(f"    asking {mirror} for Debian's {SUITE}")
        try:
            with tempfile.TemporaryDirectory(prefix="consul-tgw-apt-") as folder:
                _unpack(_download(mirror, Path(folder)), target)
            return
        except Failed as failure:
            tried.append(f"{mirror}: {failure}")
    raise Failed(_explain("\n".join(tried) or "apt has no sources here"))


def _explain(why: str) -> str:
    return (
        f"Consul {locate.OLD_CONSUL_VERSION} of Debian's {SUITE} cannot be had; a mirror that has it can be named with "
        f"{MIRROR_VARIABLE}=URI\n{why}"
    )


def mirrors() -> list[str]:
    """The repositories of the host's own sources, each once; what is known to be Debian's archive comes first."""
    chosen = os.environ.get(MIRROR_VARIABLE)
    if chosen:
        return [chosen]
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", _FIELDS, "Created-By: Packages"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    rows = [line.split("\t") for line in answer.stdout.splitlines()]
    # Origin and label are known only where the host has lists; without them every repository is tried.
    rows.sort(key=lambda row: row[1:] != ["Debian", "Debian"])
    return list(dict.fromkeys(row[0] for row in rows))


def _download(mirror: str, folder: Path) -> Path:
    """The package, its signature checked by apt all the way from the suite's Release file."""
    # apt gives up its rights while it downloads, and has to reach the folder all the same.
    folder.chmod(0o755)
    for name in ("state/lists/partial", "cache/archives/partial", "sources", "package"):
        (folder / name).mkdir(parents=True)
    (folder / "state" / "status").touch()
    (folder / "apt.conf").write_text(_CONFIGURATION.format(folder=folder))
    source = _SOURCE.format(mirror=mirror, suite=SUITE, keyring=KEYRING)
    (folder / "sources" / f"{SUITE}.sources").write_text(source)
    apt = ["apt-get", "-q", "-c", str(folder / "apt.conf")]
    run([*apt, "update", "--error-on=any"])
    wanted = f"consul={locate.OLD_CONSUL_VERSION}*"
    say(f"    downloading {wanted}, about 15 MB")
    run([*apt, "download", wanted], cwd=folder / "package")
    return next((folder / "package").glob("consul_*.deb"))


def _unpack(package: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="unpack-") as folder:
        run(["dpkg-deb", "-x", str(package), folder])
        unpacked = Path(folder) / "usr" / "bin" / "consul"
        found = locate.program_version(unpacked)
        if found is None or ".".join(map(str, found)) != locate.OLD_CONSUL_VERSION:
            raise Failed(f"{package.name} holds no Consul {locate.OLD_CONSUL_VERSION} that runs here")
        unpacked.replace(target)
