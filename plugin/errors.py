"""Errors of the control plane, split by who must act.

::

    GatewayError
    ├── ConfigError             the operator: a flag, a variable, a file
    ├── ConsulError
    │   ├── ConsulUnavailable   nobody: retried for ever, the last known state stays in force
    │   │   ├── ConsulBusy      nobody: it signs no more leaves in this second
    │   │   └── ConsulReplaced  the operator: another Consul answers, which does not know this gateway
    │   ├── ConsulForbidden     the operator: names the ACL rule that is missing
    │   └── ConsulRejected      the operator or this program: Consul understood the request and refused it
    │       └── UnknownKind     nobody: this Consul is older than a kind of config entry, so there are none of it
    │           └── NotTold     nobody, unless they need it: the token may not ask for what most do without
    ├── FileUnreadable          the operator: a file that a link names; what was read before stays in force
    ├── KeysUnavailable         the operator: what a jwt-provider names as its keys; the last ones stay in force
    ├── NameUnresolved          nobody, or the operator: retried for ever, the last addresses stay in force
    ├── SavedStateRefused       the operator: a file or directory of saved state; the gateway starts without it
    └── StartError              the operator: a process or a socket of the gateway could not be started
"""

from __future__ import annotations


class GatewayError(Exception):
    """Root of this package's errors. The text names the thing and the remedy."""


class ConfigError(GatewayError):
    pass


class ConsulError(GatewayError):
    pass


class ConsulUnavailable(ConsulError):
    """No usable answer: refused, timed out, 5xx, 429, or a body that is not what the endpoint promises."""


class ConsulBusy(ConsulUnavailable):
    """The servers are there and have reached a limit of their own (``csr_max_per_second``): ask again."""


class ConsulReplaced(ConsulUnavailable):
    """The agent is of another cluster than what is known: its answers are not about our mesh."""


class ConsulForbidden(ConsulError):
    """HTTP 403. ``rule`` is the ACL rule that would allow it, in Consul's policy language, ``accessor`` the ID of the
    token that lacks it. Each is empty where it cannot be known."""

    def __init__(self, message: str, rule: str = "", accessor: str = "") -> None:
        super().__init__(message)
        self.rule = rule
        self.accessor = accessor


class ConsulRejected(ConsulError):
    """Any other 4xx, or a validation failure that Consul reports as 500. ``status`` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnknownKind(ConsulRejected):
    """``GET /v1/config/:kind`` for a kind that this Consul does not have, or an endpoint that it lacks."""


class NotTold(UnknownKind):
    """The token may not ask for what most gateways can do without."""

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message, 403)
        self.rule = rule


class StartError(GatewayError):
    pass


class FileUnreadable(GatewayError):
    pass


class NameUnresolved(GatewayError):
    pass


class KeysUnavailable(GatewayError):
    pass


class SavedStateRefused(GatewayError):
    """A saved state that is damaged, of somebody else, or open to others."""
