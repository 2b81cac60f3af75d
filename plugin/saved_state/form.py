"""What a saved state holds and how its bytes look. Pure: no file, no clock.

A header that says what it is, its version, its length and the SHA-256 of the rest; then the rest, in MessagePack. It is
read as a whole or not at all. It holds private keys.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Generic, TypeVar

import msgspec

from plugin.consul.api import (
    ExportedService,
    GatewayService,
    HealthEntry,
    IntentionMatch,
    MeshEntry,
    ProxyDefaults,
    Roots,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.errors import SavedStateRefused
from plugin.jwks.provider import KeptKeys
from proxy.model import Leaf, PeerBundle, ServiceName
from proxy.rules import Action

T = TypeVar("T")

MAGIC = b"consul-tgw state"
VERSION = 1
"""Raised with every change after which an earlier program would misread what a later one wrote, or the reverse."""
_HEADER = struct.Struct(f">{len(MAGIC)}sIQ32s")


class Known(msgspec.Struct, Generic[T], frozen=True):
    """A fact that was known; what is not known is ``None`` in its place."""

    value: T | None
    as_of_s: float
    """Unix time at which Consul confirmed it."""


class SavedService(msgspec.Struct, frozen=True, kw_only=True):
    name: ServiceName
    instances: Known[tuple[HealthEntry, ...]] | None = None
    sidecars: Known[tuple[HealthEntry, ...]] | None = None
    intentions: Known[tuple[IntentionMatch, ...]] | None = None
    leaf: Known[Leaf] | None = None
    addresses: dict[str, Known[tuple[str, ...]]] = {}
    """By hostname."""


class SavedKeys(msgspec.Struct, frozen=True):
    source: KeptKeys
    keys: Known[str]


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose state it is."""

    service: str
    service_id: str
    namespace: str = ""
    partition: str = ""


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    owner: Owner
    datacenter: str
    saved_at_s: float
    """Unix time."""
    boot_id: str
    saved_at_boottime_s: float
    """Seconds since the start of the machine, which ``boot_id`` names."""
    ages_s: dict[str, float]
    """By kind of fact: seconds since Consul confirmed it, when it was saved."""
    entry: Known[TerminatingGatewayEntry] | None = None
    gateway_services: Known[tuple[GatewayService, ...]] | None = None
    service_defaults: Known[tuple[ServiceDefaults, ...]] | None = None
    service_resolvers: Known[tuple[ServiceResolver, ...]] | None = None
    roots: Known[Roots] | None = None
    mesh: Known[MeshEntry] | None = None
    proxy_defaults: Known[ProxyDefaults] | None = None
    default_action: Known[Action] | None = None
    providers: Known[tuple[Any, ...]] | None = None
    keys: tuple[SavedKeys, ...] = ()
    peers: Known[tuple[PeerBundle, ...]] | None = None
    exports: Known[tuple[ExportedService, ...]] | None = None
    proxy_config: dict[str, Any] = {}
    services: tuple[SavedService, ...] = ()
    generation: int = 0
    """Number of the newest state that workers had by then; at least these facts are in it."""
    bound: tuple[str, ...] = ()
    """``ip:port`` of every address that it listened on, where somebody else's definition says which."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(SavedState)


def encode(state: SavedState) -> bytes:
    """:raises SavedStateRefused: when an answer of Consul holds what this form cannot."""
    try:
        body = _encoder.encode(state)
    except (OverflowError, RecursionError) as error:
        raise SavedStateRefused(f"the state cannot be saved: it holds a value out of range ({error})") from error
    return _HEADER.pack(MAGIC, VERSION, len(body), hashlib.sha256(body).digest()) + body


def decode(content: bytes) -> SavedState:
    """:raises SavedStateRefused: with what is wrong; the file is the caller's to name."""
    if len(content) < _HEADER.size:
        raise SavedStateRefused(f"it is cut off after {len(content)} bytes")
    magic, version, length, digest = _HEADER.unpack_from(content)
    body = content[_HEADER.size :]
    if magic != MAGIC:
        raise SavedStateRefused("it is no saved state")
    if version != VERSION:
        raise SavedStateRefused(f"it has version {version}, and this program reads version {VERSION}")
    if len(body) != length:
        raise SavedStateRefused(f"it is cut off or longer than it should be: {len(body)} bytes instead of {length}")
    if hashlib.sha256(body).digest() != digest:
        raise SavedStateRefused("it is damaged: its checksum is another")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # The text of the error is left out: it may quote what was read.
        raise SavedStateRefused(f"it cannot be understood ({type(error).__name__})") from None
