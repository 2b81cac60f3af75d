"""What operators write about HTTP into a real Consul, as the workers get it: permissions, tokens, the mesh entry."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from plugin.check import Report, check_gateway
from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway as RunningGateway
from plugin.errors import ConsulForbidden
from plugin.gateway import Gateway
from plugin.observe.needs import Needs
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import ConsulSettings
from plugin.workers.published import Published
from proxy.model import HashPolicy, HashSource, HTTPSettings, Service, ServiceName
from proxy.rules import (
    Action,
    ClaimMatch,
    EscapedSlashes,
    HeaderMatch,
    Intention,
    Match,
    Normalization,
    Permission,
    TokenLocation,
    TokenProvider,
    TokenRequirement,
    Underscores,
)
from tests.support.eventually import eventually
from tests.support.key_server import KeyServer, SigningKey, key_set, kids, remote
from tests.support.rights import NODES, Rights, write

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, API = "http-gw", "http-api"
OLD, NEW = SigningKey("old"), SigningKey("new")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConsulAgent]:
    """With entries of the whole mesh, which are nobody else's business."""
    async with ConsulAgent(tmp_path_factory.mktemp("http-config"), acl=True) as agent:
        await agent.register_external("http-node", "127.0.0.1", API, 80)
        await agent.write_config({"Kind": "service-defaults", "Name": API, "Protocol": "HTTP"})
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [{"Name": API}]})
        yield agent


@dataclass
class Observed:
    store: FactStore
    published: Published
    gateway: Gateway

    @property
    def service(self) -> Service:
        return self.published.services[ServiceName(API)]

    @property
    def providers(self) -> Mapping[str, TokenProvider]:
        mesh = self.published.mesh
        return {provider.name: provider for provider in mesh.token_providers} if mesh is not None else {}

    def keys(self, name: str) -> list[str]:
        return kids(self.providers[name].keys_json) if name in self.providers else []

    def warnings(self) -> str:
        return "\n".join((*self.gateway.warnings_of(ServiceName(API)), *self.gateway.mesh_warnings))


@contextlib.asynccontextmanager
async def observing(agent: ConsulAgent, token: str = "") -> AsyncIterator[Observed]:
    """A gateway up to its workers, which are not there."""
    store, published = FactStore(), Published()
    needs = Needs(store)
    gateway = Gateway(store, published, lambda names, *, mesh: None, needs=needs.changed)
    settings = ConsulSettings(address=agent.http_address, token=token or agent.management_token)
    async with ConsulClient(settings) as client, asyncio.TaskGroup() as group:
        parts = [group.create_task(one) for one in (Observer(client, store, GATEWAY).run(), gateway.run(), needs.run())]
        try:
            await eventually(lambda: published.complete)
            yield Observed(store, published, gateway)
        finally:
            for part in parts:
                part.cancel()


async def intend(agent: ConsulAgent, *sources: dict[str, Any], **more: Any) -> None:
    await agent.write_config({"Kind": "service-intentions", "Name": API, "Sources": list(sources), **more})


async def provide(agent: ConsulAgent, name: str, key_set: dict[str, Any], **more: Any) -> None:
    await agent.write_config({"Kind": "jwt-provider", "Name": name, "JSONWebKeySet": key_set, **more})


def inline(*keys: SigningKey) -> dict[str, Any]:
    return {"Local": {"JWKS": base64.b64encode(key_set(*keys)).decode()}}


def asking_for(*providers: str) -> dict[str, Any]:
    return {"JWT": {"Providers": [{"Name": name} for name in providers]}}


async def check(agent: ConsulAgent, token: str) -> Report:
    return await check_gateway(ConsulSettings(address=agent.http_address, token=token), GATEWAY, patience_s=5.0)


def texts(report: Report) -> str:
    findings = [*report.findings, *(one for service in report.services for one in service.findings)]
    return "\n".join(f"{one.level}: {one.text} {one.rule}" for one in findings)


async def test_every_form_of_a_permission_comes_through(agent: ConsulAgent) -> None:
    await provide(agent, "http-perm", inline(OLD))
    headers = [
        {"Name": "X-A", "Present": True},
        {"Name": "X-B", "Exact": "b", "Invert": True},
        {"Name": "X-C", "Prefix": "p", "IgnoreCase": True},
        {"Name": "X-D", "Suffix": "s"},
        {"Name": "X-E", "Contains": "c"},
        {"Name": "X-F", "Regex": "r.*"},
    ]
    claims = [{"Path": ["roles", "x"], "Value": "admin"}]
    permissions = [
        {"Action": "deny", "HTTP": {"PathExact": "/admin"}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/v1/", "Methods": ["get", "POST"], "Header": headers}},
        {
            "Action": "allow",
            "HTTP": {"PathRegex": "/v[0-9]+"},
            "JWT": {"Providers": [{"Name": "http-perm", "VerifyClaims": claims}]},
        },
        {"Action": "allow", "HTTP": {"PathRegex": "/("}},
    ]
    await intend(
        agent, {"Name": "web", "Permissions": permissions}, {"Name": "*", "Action": "deny"}, **asking_for("http-perm")
    )
    async with observing(agent) as seen:
        web, everyone = seen.service.intentions or ()
        assert everyone == Intention(
            "*", Action.DENY, 8, destination=API, layer7=True, tokens=(TokenRequirement("http-perm"),)
        )
        assert (web.layer7, web.action, web.tokens) == (True, Action.DENY, (TokenRequirement("http-perm"),))
        first, second, third, fourth = web.permissions
        assert first == Permission(Action.DENY, Match.EXACT, "/admin")
        assert (second.path, second.path_value, second.methods) == (Match.PREFIX, "/v1/", ("GET", "POST"))
        assert second.headers == (
            HeaderMatch("x-a", Match.PRESENT),
            HeaderMatch("x-b", Match.EXACT, "b", invert=True),
            HeaderMatch("x-c", Match.PREFIX, "p", ignore_case=True),
            HeaderMatch("x-d", Match.SUFFIX, "s"),
            HeaderMatch("x-e", Match.CONTAINS, "c"),
            HeaderMatch("x-f", Match.REGEX, "r.*"),
        )
        assert third == Permission(
            Action.ALLOW,
            Match.REGEX,
            "/v[0-9]+",
            tokens=(TokenRequirement("http-perm", (ClaimMatch(("roles", "x"), "admin"),)),),
        )
        assert "expression of RE2" in fourth.unusable
        assert f"permission 4 of the intention web => {API} cannot be evaluated" in seen.warnings()
        assert seen.keys("http-perm") == ["old"]


async def test_what_consul_takes_for_no_requirement_denies_here(agent: ConsulAgent) -> None:
    await intend(agent, {"Name": "web", "Action": "allow"}, JWT={"Providers": []})
    async with observing(agent) as seen:
        (web,) = seen.service.intentions or ()
        assert (web.action, web.layer7) == (Action.DENY, True)
        assert "JWT names no provider" in seen.warnings()


async def test_the_mesh_entry_is_followed(agent: ConsulAgent) -> None:
    async def normalize(**fields: Any) -> None:
        http = {"SanitizeXForwardedClientCert": True, "Incoming": {"RequestNormalization": fields}}
        await agent.write_config({"Kind": "mesh", "HTTP": http})

    async with observing(agent) as seen:

        def is_now(normalization: Normalization, *, sanitized: bool = True) -> bool:
            mesh = seen.published.mesh
            return mesh is not None and (mesh.normalization, mesh.sanitize_client_cert_header) == (
                normalization,
                sanitized,
            )

        assert is_now(Normalization(), sanitized=False)
        await normalize(MergeSlashes=False)
        await eventually(lambda: is_now(Normalization()))
        await normalize(
            InsecureDisablePathNormalization=True,
            PathWithEscapedSlashesAction="UNESCAPE_AND_REDIRECT",
            HeadersWithUnderscoresAction="DROP_HEADER",
        )
        insecure = Normalization(False, False, EscapedSlashes.REDIRECT, Underscores.DROP)
        await eventually(lambda: is_now(insecure))
        await normalize(PathWithEscapedSlashesAction="REJECT_REQUEST", HeadersWithUnderscoresAction="REJECT_REQUEST")
        await eventually(
            lambda: is_now(Normalization(escaped_slashes=EscapedSlashes.REJECT, underscores=Underscores.REJECT))
        )
        await agent.delete_config("mesh", "mesh")
        await eventually(lambda: is_now(Normalization(), sanitized=False))
        assert seen.gateway.mesh_warnings == ()


async def test_settings_of_the_resolver_and_of_the_link(agent: ConsulAgent) -> None:
    policies = [
        {"Field": "cookie", "FieldValue": "c", "CookieConfig": {"TTL": "60s", "Path": "/x"}},
        {"Field": "cookie", "FieldValue": "d", "CookieConfig": {"Session": True}},
        {"Field": "header", "FieldValue": "X-User", "Terminal": True},
        {"Field": "query_parameter", "FieldValue": "q"},
    ]
    balancer = {"Policy": "maglev", "HashPolicies": policies}
    link = {"Name": API, "DisableAutoHostRewrite": True}
    async with observing(agent) as seen:
        assert seen.service.protocol == "http"
        assert seen.service.http == HTTPSettings()
        await agent.write_config(
            {"Kind": "service-resolver", "Name": API, "RequestTimeout": "1m30s", "LoadBalancer": balancer}
        )
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [link]})
        await eventually(lambda: seen.service.http == HTTPSettings(request_timeout_s=90.0, rewrite_host=False))
        assert seen.service.balance.hash_policies == (
            HashPolicy(HashSource.COOKIE, "c", cookie_lifetime_s=60.0, cookie_path="/x"),
            HashPolicy(HashSource.COOKIE, "d", cookie_lifetime_s=0.0),
            HashPolicy(HashSource.HEADER, "x-user", terminal=True),
            HashPolicy(HashSource.QUERY_PARAMETER, "q"),
        )
        await agent.delete_config("service-resolver", API)
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [{"Name": API}]})
        await eventually(lambda: seen.service.http == HTTPSettings())


async def test_an_entry_with_everything_and_its_end(agent: ConsulAgent) -> None:
    await provide(
        agent,
        "http-inline",
        inline(OLD),
        Issuer="https://i",
        Audiences=["a"],
        Locations=[{"Header": {"Name": "X-Token", "ValuePrefix": "JWT", "Forward": True}}, {"Cookie": {"Name": "c"}}],
        Forwarding={"HeaderName": "X-Payload", "PadForwardPayloadHeader": True},
        ClockSkewSeconds=7,
    )
    await intend(agent, {"Name": "web", "Action": "allow"}, **asking_for("http-inline"))
    async with observing(agent) as seen:
        assert seen.keys("http-inline") == ["old"]
        assert msgspec.structs.replace(seen.providers["http-inline"], keys_json="") == TokenProvider(
            name="http-inline",
            issuer="https://i",
            audiences=("a",),
            locations=(TokenLocation(header="x-token", prefix="JWT", forward=True), TokenLocation(cookie="c")),
            clock_skew_s=7.0,
            forward_header="x-payload",
            pad_forward_header=True,
        )
        await provide(agent, "http-inline", inline(NEW))
        await eventually(lambda: seen.keys("http-inline") == ["new"])
        # Consul deletes no provider that is named.
        await intend(agent, {"Name": "web", "Action": "allow"})
        await agent.delete_config("jwt-provider", "http-inline")
        await eventually(lambda: not seen.providers)


async def test_keys_in_a_file_and_at_a_server_rotate(agent: ConsulAgent, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(key_set(OLD))
    await provide(agent, "http-file", {"Local": {"Filename": str(path)}})
    async with KeyServer(tmp_path, key_set(OLD)) as server:
        quickly = {"RetryPolicyBackOff": {"BaseInterval": "50ms", "MaxInterval": "100ms"}}
        await provide(agent, "http-remote", remote(server, CacheDuration="1s", RetryPolicy=quickly))
        await intend(agent, {"Name": "web", "Action": "allow"}, **asking_for("http-file", "http-remote"))
        async with observing(agent) as seen:
            assert (seen.keys("http-file"), seen.keys("http-remote")) == (["old"], ["old"])
            path.write_bytes(key_set(NEW))
            server.serve(NEW)
            await eventually(lambda: (seen.keys("http-file"), seen.keys("http-remote")) == (["new"], ["new"]))
            server.status = 500
            await eventually(lambda: "status 500" in seen.warnings())
            assert "stay in force" in seen.warnings()
            assert seen.keys("http-remote") == ["new"]
            server.status = 200
            await eventually(lambda: not seen.warnings())


async def test_the_rights_of_a_gateway_are_enough(agent: ConsulAgent) -> None:
    await provide(agent, "http-acl", inline(OLD))
    await intend(agent, {"Name": "web", "Action": "allow"}, **asking_for("http-acl"))
    token = await agent.create_token(f"{write(GATEWAY, API)}\n{NODES}")
    async with observing(agent, token) as seen:
        assert seen.keys("http-acl") == ["old"]
        assert not seen.warnings()
    report = await check(agent, token)
    assert report.ok
    assert "ok: the jwt-provider http-acl has keys" in texts(report)


async def test_providers_that_may_not_be_read_are_no_absent_ones(agent: ConsulAgent) -> None:
    await provide(agent, "http-hidden", inline(OLD))
    await intend(agent, {"Name": "web", "Action": "allow"}, {"Name": "batch", "Action": "deny"})
    rules = f'service_prefix "" {{ policy = "read", intentions = "read" }}\n{NODES}'
    rights = await Rights.of(agent, rules)
    assert "jwt-provider" not in texts(await check(agent, rights.secret)), "nobody needs the right yet"
    async with observing(agent, rights.secret) as seen:
        await intend(agent, {"Name": "web", "Action": "allow"}, **asking_for("http-hidden"))
        await eventually(lambda: isinstance(seen.store.providers.fact.problem, ConsulForbidden))
        await eventually(lambda: 'mesh = "read"' in seen.providers["http-hidden"].problem)
        told = texts(await check(agent, rights.secret))
        assert "missing: the token may not read jwt-provider entries" in told
        await rights.become(f'{rules}\nmesh = "read"')
        await eventually(lambda: seen.keys("http-hidden") == ["old"])
        assert seen.gateway.mesh_warnings == ()


async def test_check_names_what_denies(agent: ConsulAgent) -> None:
    await provide(agent, "http-away", {"Remote": {"URI": "http://127.0.0.1:1/keys"}})
    await intend(
        agent,
        {
            "Name": "web",
            "Permissions": [
                {"Action": "allow", "HTTP": {"PathRegex": "/("}},
                {"Action": "allow", "HTTP": {"PathPrefix": "/"}, **asking_for("http-away")},
            ],
        },
    )
    report = await check(agent, agent.management_token)
    told = texts(report)
    assert f"warning: permission 1 of the intention web => {API} cannot be evaluated" in told
    assert "warning: the jwt-provider http-away: the keys at http://127.0.0.1:1/keys cannot be had" in told
    assert "warning: whoever needs a token of the jwt-provider http-away is refused" in told
    assert "protocol http" in told
    assert report.ok, "the service is served all the same"


async def test_a_restart_without_consul_and_without_the_provider(work_dir: Path) -> None:
    """Permissions and keys are in force before anybody answers."""
    state = f"--state-dir={work_dir / 'state'}"

    async with ConsulAgent(work_dir / "consul") as agent, KeyServer(work_dir, key_set(OLD)) as server:
        await agent.register_external("http-node", "127.0.0.1", API, 80)
        await agent.write_config({"Kind": "service-defaults", "Name": API, "Protocol": "http"})
        await agent.write_config({"Kind": "terminating-gateway", "Name": GATEWAY, "Services": [{"Name": API}]})
        await provide(agent, "http-saved", remote(server))
        permission = {"Action": "allow", "HTTP": {"PathPrefix": "/v1"}}
        await intend(agent, {"Name": "web", "Permissions": [permission]}, **asking_for("http-saved"))
        gateway = RunningGateway(agent, work_dir, GATEWAY, arguments=[state])
        async with gateway:

            async def has_keys() -> bool:
                return any(one["keys_json"] for one in (await gateway.snapshot())["mesh"]["token_providers"])

            await eventually(has_keys)
            before = await gateway.snapshot()
        await agent.kill()
        await server.stop()
        async with gateway:
            after = await gateway.snapshot()
    assert after["upserts"][0]["intentions"] == before["upserts"][0]["intentions"]
    assert after["upserts"][0]["intentions"][0]["permissions"][0]["path_value"] == "/v1"
    assert after["mesh"]["token_providers"] == before["mesh"]["token_providers"]
