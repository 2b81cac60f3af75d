"""Does what systemd does for a service with a ``.socket`` unit: binds, says so by descriptor and variables, executes.

Run as ``python activated.py ADDRESS PORT NUMBER COMMAND...``. With one socket it is bound without ``SO_REUSEPORT``:
then nobody else can listen there, whoever he is.
"""

from __future__ import annotations

import os
import socket
import sys

FIRST = 3


def main() -> None:
    address, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    made = []
    for _ in range(number):
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if number > 1:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind((address, port))
        listening.listen(128)
        made.append(os.dup(listening.fileno()))
    high = [os.dup(one) for one in made]
    while min(high) < FIRST + number:
        high = [os.dup(one) for one in high]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, FIRST + place, inheritable=True)
    named = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number), "LISTEN_FDNAMES": ":".join(["mesh"] * number)}
    os.execve(sys.argv[4], sys.argv[4:], {**os.environ, **named})


if __name__ == "__main__":
    main()
