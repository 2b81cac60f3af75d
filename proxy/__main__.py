"""``python -m proxy --control-fd N``: started by the control process, not by hand."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from proxy import compiled, logs
from proxy.confinement import Confinement, hide_memory


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m proxy", description="A worker of consul-tgw run.")
    parser.add_argument("--control-fd", type=int, required=True, help="the inherited end of a Unix socket pair")
    parser.add_argument("--user", type=int, default=-1, metavar="UID", help="become this user before serving")
    parser.add_argument("--group", type=int, default=-1, metavar="GID", help="become this group before serving")
    parser.add_argument("--debuggable", action="store_true", help="leave the memory to debuggers of the same user")
    arguments = parser.parse_args()
    confinement = Confinement(user=arguments.user, group=arguments.group, debuggable=arguments.debuggable)
    if not confinement.debuggable:
        hide_memory()  # keys come with the first frames
    logs.configure("info", "text", sys.stderr)  # without a thread, until the first frame says how
    try:
        control = socket.socket(fileno=arguments.control_fd)
    except OSError as error:
        parser.error(f"--control-fd {arguments.control_fd} is not a socket: {error.strerror}")
    try:
        code = compiled.use()  # before anything imports what may be compiled
    except compiled.CodeError as error:
        parser.error(str(error))
    # Before anything loads OpenSSL, which reads it once.
    os.environ.setdefault("OPENSSL_CONF", str(Path(__file__).with_name("tls") / "openssl.cnf"))
    from proxy.worker import run

    run(control, confinement, code=str(code))
    return 0


if __name__ == "__main__":
    sys.exit(main())
