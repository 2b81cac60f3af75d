"""Where the clients of a flood connect to, and as whom: the same arguments for every process."""

from __future__ import annotations

import argparse
import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Aim:
    port: int
    folder: Path
    """With ``roots.pem``, ``web.pem`` and ``web.key``."""
    domain: str

    def name(self, service: str = "db") -> str:
        return f"{service}.default.dc1.internal.{self.domain}"

    def context(self, certificate: str = "web.pem") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.folder / "roots.pem")
        context.load_cert_chain(self.folder / certificate, self.folder / "web.key")
        return context

    def arguments(self) -> list[str]:
        return [str(self.port), str(self.folder), self.domain]


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("domain")
    return arguments
