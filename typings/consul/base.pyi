"""What this project uses of python-consul2, which carries no annotations."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

class Response(NamedTuple):
    code: int
    headers: Mapping[str, str]
    body: str
    content: bytes

Callback = Callable[[Response], Any]
Params = Sequence[tuple[str, Any]] | None

class HTTPClient:
    host: str
    port: int
    scheme: str
    base_uri: str
    def __init__(
        self,
        host: str = ...,
        port: int = ...,
        scheme: str = ...,
        verify: bool = ...,
        cert: Any = ...,
        timeout: float | None = ...,
    ) -> None: ...
    def uri(self, path: str, params: Params = ...) -> str: ...

class Consul:
    consistency: str
    dc: str | None
    http: HTTPClient
    scheme: str
    token: str | None
    agent: Agent
    catalog: Catalog
    health: Health

    class Agent:
        service: Consul.AgentService
        check: Consul.AgentCheck
        def __init__(self, agent: Consul) -> None: ...
        def self(self, token: str | None = ...) -> Awaitable[Any]: ...

    class Catalog:
        def __init__(self, agent: Consul) -> None: ...

    class Health:
        def __init__(self, agent: Consul) -> None: ...

    class AgentService:
        def deregister(self, service_id: str, token: str | None = ...) -> Awaitable[bool]: ...

    class AgentCheck:
        def ttl_pass(self, check_id: str, notes: str | None = ..., token: str | None = ...) -> Awaitable[bool]: ...
        def ttl_warn(self, check_id: str, notes: str | None = ..., token: str | None = ...) -> Awaitable[bool]: ...
        def ttl_fail(self, check_id: str, notes: str | None = ..., token: str | None = ...) -> Awaitable[bool]: ...

Agent = Consul.Agent
Catalog = Consul.Catalog
Health = Consul.Health
