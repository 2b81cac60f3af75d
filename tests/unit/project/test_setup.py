"""Setting up starts no service: as Debian's own scripts ask."""

from __future__ import annotations

import subprocess
from pathlib import Path

from scripts.setup import no_service_started


def test_services_are_refused_while_packages_are_installed(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    with no_service_started([], policy):
        # 101: action forbidden by policy (invoke-rc.d(8)).
        assert subprocess.run([policy, "nginx", "start"], check=False).returncode == 101
        # An interrupted one has left it, and the next one takes it away.
        with no_service_started([], policy):
            pass
        assert not policy.exists()
    assert not policy.exists()


def test_somebody_s_own_policy_stays(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    with no_service_started([], policy):
        assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert policy.exists()
