"""The keys of ``Proxy.Config`` that say how the gateway treats its external services.

Values are read as loosely as Consul reads them: ``"250"`` and ``250`` are the same. A value that cannot be read is
reported and its default applies, so a typing error never stops a gateway. The addresses to bind are elsewhere.
Source: https://developer.hashicorp.com/consul/docs/reference/proxy/envoy (gateway options).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.model import Keepalive

_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "FALSE", "false", "False"), False),
}

_KEEPALIVE = "envoy_gateway_remote_tcp_"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    connect_timeout_s: float | None = None
    """``connect_timeout_ms``; ``None`` when it is not set."""
    keepalive: Keepalive | None = None
    warnings: tuple[str, ...] = ()


def upstream_config(own: Mapping[str, object], shared: Mapping[str, object]) -> UpstreamConfig:
    """Read the gateway's own ``Proxy.Config`` over the ``Config`` of proxy-defaults, key by key."""
    reader = _Reader({**shared, **own})
    timeout_ms = reader.number("connect_timeout_ms")
    keepalive = None
    if reader.truth(f"{_KEEPALIVE}enable_keepalive"):
        keepalive = Keepalive(
            time_s=reader.number(f"{_KEEPALIVE}keepalive_time"),
            interval_s=reader.number(f"{_KEEPALIVE}keepalive_interval"),
            probes=reader.number(f"{_KEEPALIVE}keepalive_probes"),
        )
    return UpstreamConfig(
        connect_timeout_s=timeout_ms / 1000 if timeout_ms else None,
        keepalive=keepalive,
        warnings=tuple(reader.warnings),
    )


class _Reader:
    def __init__(self, config: Mapping[str, object]) -> None:
        self._config = config
        self.warnings: list[str] = []

    def number(self, key: str) -> int:
        """Return a number that is not negative; 0 when it is absent or unusable."""
        value = self._config.get(key)
        try:
            number = _number(value)
        except (ValueError, OverflowError):
            number = -1
        if number < 0:
            self._warn(key, value, "a whole number that is not negative")
            return 0
        return number

    def truth(self, key: str) -> bool:
        value = self._config.get(key)
        if isinstance(value, bool | int | float):
            return bool(value)
        truth = False if value is None else _TRUTHS.get(value) if isinstance(value, str) else None
        if truth is None:
            self._warn(key, value, "true or false")
        return bool(truth)

    def _warn(self, key: str, value: object, wanted: str) -> None:
        self.warnings.append(
            f"{key} = {value!r} in Proxy.Config or proxy-defaults is not {wanted}; its default applies. "
            "Correct it in the gateway's registration or in the proxy-defaults entry"
        )


def _number(value: object) -> int:
    if value is None or value == "":
        return 0
    if isinstance(value, str):
        return int(value, 0)
    if isinstance(value, bool | int | float):
        return int(value)
    raise ValueError(value)
