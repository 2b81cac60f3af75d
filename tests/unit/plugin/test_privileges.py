from __future__ import annotations

import os
import pwd

import pytest

from plugin.errors import ConfigError, StartError
from plugin.process import privileges


def test_to_become_oneself_is_nothing() -> None:
    privileges.become(pwd.getpwuid(os.geteuid()).pw_name)


def test_a_user_who_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="there is no such user"):
        privileges.become("no-such-user")


def test_only_root_becomes_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(StartError, match="this is user 12345; start it as root, or as nobody without --user"):
        privileges.become("nobody")


def test_what_the_kernel_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "initgroups", refused)
    with pytest.raises(StartError, match="Operation not permitted; the container or service lacks CAP_SETUID"):
        privileges.become("nobody")


def test_the_workers_of_root_are_nobody_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    nobody, daemon = pwd.getpwnam("nobody"), pwd.getpwnam("daemon")
    assert privileges.worker_identity("") == (nobody.pw_uid, nobody.pw_gid)
    assert privileges.worker_identity("daemon") == (daemon.pw_uid, daemon.pw_gid)
    with pytest.raises(ConfigError, match="--worker-user root: that is root; name an unprivileged user"):
        privileges.worker_identity("root")


def test_the_workers_of_anybody_else_stay_who_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    assert privileges.worker_identity("") is None
    assert privileges.worker_identity("nobody") is None
    with pytest.raises(ConfigError, match="--worker-user daemon: only root can start workers as another user"):
        privileges.worker_identity("daemon")
