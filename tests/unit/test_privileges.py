from __future__ import annotations

import os
import pwd

import pytest

from plugin import privileges
from plugin.errors import ConfigError, StartError


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
