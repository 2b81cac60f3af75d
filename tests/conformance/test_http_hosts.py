"""Host, and what the external service is told about the caller."""

from __future__ import annotations

import re
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Seen, passed
from tests.conformance.http_one import ask, request, said
from tests.conformance.http_stand import mirrored, reached
from tests.conformance.stand import Stand

TOPIC = "HTTP: Host and caller"


HOSTS = {
    "DB.Example:8443": "DB.Example:8443",
    "[::1]:80": "[::1]:80",
    "a_b": "a_b",
    "a b": "400",
    "x/y": "400",
}


@conformance(TOPIC, "Host is passed on to an instance with an IP address, in its own case, with its port", expect=HOSTS)
async def test_host(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    facts = {}
    for host in HOSTS:
        status = await said(stand, request("GET /host HTTP/1.1", host=host))
        facts[host] = mirror.last("/host").value("host") if status == "200" else status
    return facts


@conformance(
    TOPIC,
    "A request without a Host, or with several: Envoy joins them, this gateway refuses; HTTP/2 may say it either way",
    envoy={
        "none": "400",
        "two": "db.example,other.example",
        "the same twice": "db.example,db.example",
        "empty": "",
        "with a user": "u@db.example",
        "HTTP/2, :authority and another host": "db.example",
        "HTTP/2, host alone": "only.example",
        "HTTP/2, none": "ended",
    },
    ours={
        "none": "400",
        "two": "400",
        "the same twice": "400",
        "empty": "400",
        "with a user": "400",
        "HTTP/2, :authority and another host": "reset PROTOCOL_ERROR",
        "HTTP/2, host alone": "only.example",
        "HTTP/2, none": "reset PROTOCOL_ERROR",
    },
    decision="033",
)
async def test_odd_hosts(stand: Stand) -> Observation:
    mirror = await mirrored(stand)

    async def one(data: bytes) -> str:
        status = await said(stand, data)
        return mirror.last("/host").value("host") if status == "200" else status

    async def other(pairs: two.Pairs) -> str:
        stream = await two.outcome(stand, pairs)
        return mirror.last("/host").value("host") if stream == "200" else stream

    bare = [(":method", "GET"), (":scheme", "https"), (":path", "/host")]
    return {
        "none": await one(request("GET /host HTTP/1.1", host="")),
        "two": await one(request("GET /host HTTP/1.1", "Host: other.example")),
        "the same twice": await one(request("GET /host HTTP/1.1", "Host: db.example")),
        "empty": await one(b"GET /host HTTP/1.1\r\nHost:\r\n\r\n"),
        "with a user": await one(request("GET /host HTTP/1.1", host="u@db.example")),
        "HTTP/2, :authority and another host": await other(two.headers("/host", ("host", "other.example"))),
        "HTTP/2, host alone": await other([*bare, ("host", "only.example")]),
        "HTTP/2, none": await other(bare),
    }


@conformance(
    TOPIC,
    "An instance with a hostname gets it as Host, in subsets too, unless DisableAutoHostRewrite",
    expect={
        "HTTP/1.1": "HOSTNAME",
        "HTTP/2": "HOSTNAME",
        "a subset": "HOSTNAME",
        "DisableAutoHostRewrite": "db.example",
        "DisableAutoHostRewrite, a subset": "db.example",
    },
)
async def test_rewritten_host(stand: Stand) -> Observation:
    hostname = stand.hostname("instance")
    stand.dns.records[hostname] = ["127.0.0.1"]

    def host(seen: Seen) -> str:
        return "HOSTNAME" if seen.value("host") == hostname else seen.value("host")

    facts = {}
    for service, link in (("db", {}), ("kept", {"DisableAutoHostRewrite": True})):
        await stand.config("service-resolver", service, Subsets={"all": {"Filter": "Service.Port != 0"}})
        mirror = await mirrored(stand, service, link=link, address=hostname, wait=False)
        await reached(stand, service)
        await reached(stand, service, subset="all")
        await ask(stand, request("GET /one HTTP/1.1"), service)
        await two.ask(stand, two.headers("/two"), service=service)
        await ask(stand, request("GET /subset HTTP/1.1"), service, subset="all")
        if service == "db":
            facts = {"HTTP/1.1": host(mirror.last("/one")), "HTTP/2": host(mirror.last("/two"))}
            facts["a subset"] = host(mirror.last("/subset"))
        else:
            facts["DisableAutoHostRewrite"] = host(mirror.last("/one"))
            facts["DisableAutoHostRewrite, a subset"] = host(mirror.last("/subset"))
    return facts


# --- the caller's certificate --------------------------------------------------------------------------------


def element(value: str, stand: Stand, leaf: x509.Certificate) -> str:
    """An element of ``x-forwarded-client-cert`` with what it says about ``leaf`` and the case put into words."""
    value = value.replace(leaf.fingerprint(hashes.SHA256()).hex(), "SHA256")
    fields = []
    for field in value.split(";"):
        name, _, text = field.partition("=")
        if name in ("Cert", "Chain"):
            chain = x509.load_pem_x509_certificates(unquote(text.strip('"')).encode())
            text = "LEAF" if chain[0] == leaf else "another"
            if name == "Chain":
                text += f"+{len(chain) - 1}"
        fields.append(f"{name}={text}")
    joined = ";".join(fields)
    joined = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "CLUSTER", joined)
    return re.sub(r"-[eo]\d+\b", "", joined)


_BY = "By=spiffe://CLUSTER.consul/ns/default/dc/dc1/svc/db"
_URI = "URI=spiffe://CLUSTER.consul/ns/default/dc/dc1/svc/web"
_ELEMENT = f'{_BY};Hash=SHA256;Cert=LEAF;Chain=LEAF+1;Subject="";{_URI}'


@conformance(
    TOPIC,
    "x-forwarded-client-cert tells who calls; a client's own is kept in front of it",
    expect={
        "HTTP/1.1": _ELEMENT,
        "HTTP/2": _ELEMENT,
        "with a client's own": f"By=spiffe://evil;URI=spiffe://evil,{_ELEMENT}",
        "with two of the client": f"By=a;URI=b,By=c;URI=d,{_ELEMENT}",
        "lines": 1,
    },
)
async def test_client_cert(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    leaf = await _leaf(stand)

    def shown(path: str) -> str:
        *before, own = mirror.last(path).value("x-forwarded-client-cert").split(",")
        return ",".join([*before, element(own, stand, leaf)])

    own = "X-Forwarded-Client-Cert: "
    await ask(stand, request("GET /none HTTP/1.1"))
    await two.ask(stand, two.headers("/two"))
    await ask(stand, request("GET /own HTTP/1.1", own + "By=spiffe://evil;URI=spiffe://evil"))
    await ask(stand, request("GET /both HTTP/1.1", own + "By=a;URI=b", own + "By=c;URI=d"))
    return {
        "HTTP/1.1": shown("/none"),
        "HTTP/2": shown("/two"),
        "with a client's own": shown("/own"),
        "with two of the client": shown("/both"),
        "lines": len(mirror.last("/both").values("x-forwarded-client-cert")),
    }


async def _leaf(stand: Stand) -> x509.Certificate:
    client = await stand.client("web")
    assert client.leaf is not None
    return x509.load_pem_x509_certificate(client.leaf.certificate_pem.encode())


@conformance(
    TOPIC,
    "SanitizeXForwardedClientCert of the mesh: a client's own is removed, and none is added",
    expect={"a client's own": "-", "none": "-"},
    own_consul={},
)
async def test_sanitized(stand: Stand) -> Observation:
    await stand.agent.write_config({"Kind": "mesh", "HTTP": {"SanitizeXForwardedClientCert": True}})
    mirror = await mirrored(stand)
    await stand.settled()
    name = "x-forwarded-client-cert"
    await ask(stand, request("GET /own HTTP/1.1", f"{name}: By=spiffe://evil;URI=spiffe://evil"))
    await ask(stand, request("GET /none HTTP/1.1"))
    return {
        "a client's own": passed(mirror.last("/own"), [name])[name],
        "none": passed(mirror.last("/none"), [name])[name],
    }
