"""Reads everything that our programs print while the tests run, and looks for what must never be in it.

:data:`OUTPUT` is told of each program as it starts (``tests/conftest.py`` sees to it) and of each secret as it is made;
:meth:`Output.check` reads what is new and says what it found. Nothing here knows a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

SHORTEST = 8
"""Characters. What is shorter is found in any text."""
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_OVERLAP = 256
"""Bytes that are looked at again with the next ones: a secret may be cut by the end of a read."""
_VARIABLES = ("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_AUTH", "CONSUL_TGW_ADMIN_TOKEN")


@dataclass(slots=True)
class _Source:
    name: str
    path: Path | None = None
    file: IO[bytes] | None = None
    last: bytes = b""
    size: int = 0


@dataclass
class Output:
    secrets: set[bytes] = field(default_factory=set)
    sources: list[_Source] = field(default_factory=list)

    @property
    def bytes_read(self) -> int:
        return sum(source.size for source in self.sources)

    def silent(self) -> list[str]:
        """Programs that have printed nothing so far."""
        return [source.name for source in self.sources if not source.size and source.path is None]

    def learn(self, secret: str) -> None:
        if len(secret) >= SHORTEST:
            self.secrets.add(secret.encode())

    def learn_environment(self, environment: Mapping[str, str]) -> None:
        """What a program is given to keep to itself."""
        for name in _VARIABLES:
            self.learn(environment.get(name, ""))
        self.learn(environment.get("CONSUL_HTTP_AUTH", "").partition(":")[2])
        token_file = Path(environment.get("CONSUL_HTTP_TOKEN_FILE", ""))
        if token_file.is_file():
            self.learn(token_file.read_text().strip())

    def follow(self, name: str, path: Path) -> None:
        """The file of a program that has just been started: kept open, since tests remove their folders."""
        if not path.is_file():
            return  # a pipe or a device, put there by a test that breaks the log: what passes is that test's to read
        file = path.open("rb")
        file.seek(0, 2)
        self.sources.append(_Source(name, file=file))

    def follow_later(self, name: str, path: Path) -> None:
        """A file that the program makes itself, if at all."""
        self.sources.append(_Source(name, path=path))

    def feed(self, name: str, data: bytes) -> list[str]:
        """What a program printed that has ended."""
        source = _Source(name)
        self.sources.append(source)
        return self._look(source, data)

    def check(self) -> list[str]:
        """Read what is new. Returns where a secret was printed, without the secret."""
        found: list[str] = []
        for source in self.sources:
            if source.file is None and source.path is not None and source.path.is_file():
                source.file = source.path.open("rb")
            if source.file is not None:
                found += self._look(source, source.file.read())
        return found

    def _look(self, source: _Source, data: bytes) -> list[str]:
        text = source.last + data
        source.size += len(data)
        source.last = text[-_OVERLAP:]
        found = [f"{source.name} printed a private key"] if _PRIVATE_KEY.search(text) else []
        return found + [
            f"{source.name} printed a secret of {len(one)} characters" for one in self.secrets if one in text
        ]


OUTPUT = Output()
