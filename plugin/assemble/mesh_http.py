"""``HTTP`` of the mesh entry: what callers say of themselves, and how requests are read before they are judged.

What is not set, not known or not usable leaves the secure default in its place, and the latter two are reported.
Source: https://developer.hashicorp.com/consul/docs/reference/config-entry/mesh (HTTP).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from plugin.consul.strict import shortened
from proxy.rules import EscapedSlashes, Normalization, Underscores

E = TypeVar("E", bound=Enum)

_ESCAPED_SLASHES = {
    "KEEP_UNCHANGED": EscapedSlashes.KEEP,
    "REJECT_REQUEST": EscapedSlashes.REJECT,
    "UNESCAPE_AND_FORWARD": EscapedSlashes.UNESCAPE,
    "UNESCAPE_AND_REDIRECT": EscapedSlashes.REDIRECT,
}
_UNDERSCORES = {
    "ALLOW": Underscores.ALLOW,
    "REJECT_REQUEST": Underscores.REJECT,
    "DROP_HEADER": Underscores.DROP,
}
_DEFAULT = "IMPLEMENTATION_SPECIFIC_DEFAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshHTTP:
    normalization: Normalization
    sanitize_client_cert_header: bool
    warnings: tuple[str, ...]


def mesh_http(http: object) -> MeshHTTP:
    """Read ``HTTP``, whatever it is; ``None`` means that nothing is set."""
    top = _Fields("HTTP", http)
    # Whoever wanted the header gone and misspelt it gets it gone.
    sanitize = top.flag("SanitizeXForwardedClientCert", wrong=True)
    incoming = top.part("Incoming")
    read = incoming.part("RequestNormalization")
    plain = Normalization()
    insecure = read.flag("InsecureDisablePathNormalization", wrong=False)
    merge = read.flag("MergeSlashes", wrong=True)
    normalization = Normalization(
        dot_segments=not insecure,
        # Consul answers false when it is not set, too. Only who gave up on normalised paths is taken to mean it.
        merge_slashes=merge or not insecure,
        escaped_slashes=read.choice(
            "PathWithEscapedSlashesAction", _ESCAPED_SLASHES, plain.escaped_slashes, wrong=EscapedSlashes.REJECT
        ),
        underscores=read.choice(
            "HeadersWithUnderscoresAction", _UNDERSCORES, plain.underscores, wrong=plain.underscores
        ),
    )
    for part in (top, incoming, read):
        part.end()
    return MeshHTTP(normalization=normalization, sanitize_client_cert_header=sanitize, warnings=tuple(top.warnings))


@dataclass(slots=True)
class _Fields:
    """The fields of a JSON object, each asked for once."""

    where: str
    given: Any
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.given is not None and not isinstance(self.given, Mapping):
            self._wrong(self.where, "no object; its defaults apply")
            self.given = None
        self.given = dict(self.given or {})

    def part(self, name: str) -> _Fields:
        return _Fields(f"{self.where}.{name}", self.given.pop(name, None), self.warnings)

    def flag(self, name: str, *, wrong: bool) -> bool:
        """``wrong`` is what anything else than true and false counts as."""
        value = self.given.pop(name, None)
        if value is None or isinstance(value, bool):
            return bool(value)
        self._wrong(f"{self.where}.{name}", f"neither true nor false; it counts as {str(wrong).lower()}")
        return wrong

    def choice(self, name: str, known: Mapping[str, E], default: E, *, wrong: E) -> E:
        """``wrong`` is what anything else than the known words counts as."""
        value = self.given.pop(name, None)
        if value in (None, "", _DEFAULT):
            return default
        if isinstance(value, str) and value in known:
            return known[value]
        instead = next(text for text, one in known.items() if one is wrong)
        said = shortened(repr(value))
        self._wrong(f"{self.where}.{name}", f"{said}, which is none of {', '.join(known)}; {instead} applies")
        return wrong

    def end(self) -> None:
        for name in self.given:
            self._wrong(f"{self.where}.{shortened(str(name))}", "not known to this gateway; it does without")

    def _wrong(self, what: str, why: str) -> None:
        self.warnings.append(f"{what} of the mesh entry is {why}. Correct the entry")
