"""Walks one caller's way to one service, step by step, in the order in which the gateway looks.

Pure: the state in force and a question in, sentences out. Whatever decides here is the code that decides in the workers
(:class:`proxy.policy.intentions.Policy`, :mod:`proxy.http.policy.normalization`): nothing is decided anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from plugin.explain import remedies, way
from plugin.explain.answer import Explanation, State, Step, Verdict
from plugin.explain.caller import Caller, caller
from plugin.explain.request import Question, as_decided, head_of
from plugin.explain.standing import Standing
from plugin.spans import duration, point
from proxy.http.errors import BadRequest
from proxy.http.message import RequestHead
from proxy.http.policy.normalization import Elsewhere
from proxy.model import Mesh, ServerName, Service
from proxy.policy.intention_index import intention_text
from proxy.policy.intentions import Decision, Policy, Refusal, describe
from proxy.rules import Intention


class _Blocked(Exception):
    """The way ends here; what follows cannot be told."""


def explain(standing: Standing, asked: Question, *, now_s: float) -> Explanation:
    """:raises ConfigError: when the question names nobody or nothing."""
    walk = _Walk(standing, asked, caller(asked.source, standing.mesh), now_s)
    try:
        walk.go()
    except _Blocked:
        pass
    return walk.explanation()


class _Walk:
    def __init__(self, standing: Standing, asked: Question, who: Caller, now_s: float) -> None:
        self._standing = standing
        self._asked = asked
        self._who = who
        self._now_s = now_s
        self._steps: list[Step] = []
        self._remedies: remedies.Remedies = ((), ())
        self._verdict = Verdict.ALLOWED
        self._sentence = ""
        self._request = ""

    def go(self) -> None:
        self._link()
        service, mesh = self._service()
        names = self._server_name(service)
        self._leaf(service)
        policy = Policy.compile(service, mesh)
        self._caller(policy)
        if self._standing.too_old:
            self._stop(
                "state",
                Verdict.NOT_SERVED,
                "Consul has confirmed nothing for longer than --max-state-age, so nobody new is let in (stale_state).",
            )
        self._policy(service, mesh, policy)
        self._endpoints(service, names)
        self._note("upstream TLS", *way.upstream_tls(service))
        self._note("limits", *way.limits(self._standing, service))

    def explanation(self) -> Explanation:
        what = f"{self._request} to " if self._request else "a connection to "
        if self._verdict is Verdict.ALLOWED:
            sentence = f"{self._who.text} is allowed: {what}{self._standing.name} is {self._sentence}."
        else:
            sentence = self._sentence
        found, remarks = self._remedies
        return Explanation(
            source=self._who.spiffe_id if self._standing.mesh is not None else self._asked.source,
            destination=str(self._standing.name),
            request=self._request,
            verdict=self._verdict,
            sentence=sentence,
            steps=tuple(self._steps),
            remedies=found,
            remarks=remarks,
            generation=self._standing.generation,
        )

    # --- what every connection needs -----------------------------------------------------------------------------

    def _link(self) -> None:
        standing = self._standing
        name, gateway = standing.name, standing.gateway
        if not standing.links_known:
            self._stop("link", Verdict.NOT_SERVED, "Consul has not said yet which services are linked.")
        if not standing.linked:
            self._remedies = remedies.of_link(standing)
            others = f" Linked are: {', '.join(standing.others[:20])}." if standing.others else " Nothing is linked."
            text = f"{name} is not linked to {gateway}: whoever asks for it is sent away (unknown_server_name)."
            self._stop("link", Verdict.NOT_SERVED, text, text + others)
        how = "by `*`" if standing.from_wildcard else "by name"
        self._good("link", f"{name} is linked {how} in the terminating-gateway entry {gateway}.")

    def _service(self) -> tuple[Service, Mesh]:
        standing = self._standing
        service, mesh, name = standing.service, standing.mesh, standing.name
        if service is None or mesh is None:
            why = standing.problems or ("no answer from Consul yet",)
            text = f"{name} is linked and not served: {'; '.join(why)}"
            self._stop("service", Verdict.NOT_SERVED, text, *(f"Not served: {one}" for one in why))
        decided = (
            "each request is decided about" if service.http is not None else "each connection is decided about once"
        )
        lines = [f"It is served as {service.protocol}: {decided}."]
        lines += [
            f"It is served with an earlier state, because the newest cannot be used: {one}" for one in standing.problems
        ]
        lines += [f"Warning: {one}" for one in standing.warnings]
        self._add("service", State.NOTE if len(lines) > 1 else State.GOOD, *lines)
        return service, mesh

    def _server_name(self, service: Service) -> tuple[ServerName, ...]:
        peer, asks = self._who.peer, "A sidecar asks for"
        if peer in service.importers:
            peer, asks = "", f"A mesh gateway of this cluster, which asks for callers of peer {peer}, asks for"
        names = tuple(one for one in service.server_names if one.peer == peer)
        if not names:
            whom = f"peer {peer}" if peer else "this cluster"
            text = f"{service.name} has no server name for callers of {whom}: it is not exported to it."
            self._stop("server name", Verdict.NOT_SERVED, text)
        lines = [f"{asks} {names[0].sni}."]
        lines += [f"Also served: {one.sni}" + (f" (subset {one.subset})" if one.subset else "") for one in names[1:]]
        self._good("server name", *lines)
        return names

    def _leaf(self, service: Service) -> None:
        leaf = service.leaf
        left_s = leaf.not_after_s - self._now_s
        shown = f"The gateway shows the leaf of {leaf.spiffe_id}"
        if left_s <= 0:
            text = f"{shown}, which expired {duration(left_s).removeprefix('-')} ago, at {point(leaf.not_after_s)}."
            self._stop("leaf", Verdict.NOT_SERVED, text)
        self._good("leaf", f"{shown}, valid until {point(leaf.not_after_s)} (for {duration(left_s)}).")

    def _caller(self, policy: Policy) -> None:
        who = self._who
        if stranger := policy.stranger(who.identity, who.peer):
            self._stop("caller", Verdict.DENIED, f"Refused as bad_identity: {stranger}.")
        if who.peer in policy.importers:
            self._good("caller", f"It is {who.spiffe_id}, if a mesh gateway of this cluster says so of the request.")
            return
        roots = f"the roots of peer {who.peer}" if who.peer else "this cluster's roots"
        self._good("caller", f"It is {who.spiffe_id}, if its certificate is verified by {roots}.")

    # --- policy --------------------------------------------------------------------------------------------------

    def _policy(self, service: Service, mesh: Mesh, policy: Policy) -> None:
        who, head = self._who, None
        matching = policy.matching(who.identity, who.peer)
        if service.http is None:
            decision: Decision = policy.authorize(who.identity, who.peer)
            lines: list[str] = []
        else:
            head = as_decided(policy, service, mesh, who, self._head(mesh))
            decision = policy.authorize_request(who.identity, who.peer, head, self._now_s)
            lines = list(policy.explain_request(who.identity, who.peer, head, self._now_s))[:-1]
        state = State.BAD if isinstance(decision, Refusal) else State.GOOD
        self._add("intentions", State.GOOD if lines else state, *_which(service, mesh, matching))
        if lines:
            self._add("permissions", state, *(_capital(line) for line in lines))
        if isinstance(decision, Refusal):
            self._remedies = remedies.of_refusal(self._standing, who, decision, matching[:1], head)
            self._end(Verdict.DENIED, f"{decision.sentence}.")
        self._sentence = f"allowed by {describe(decision)}"

    def _head(self, mesh: Mesh) -> RequestHead:
        method, path = self._asked.method or "GET", self._asked.path or "/"
        self._request = f"{method} {path.partition('?')[0]}"
        try:
            head = head_of(self._asked, mesh.normalization)
        except BadRequest as error:
            self._stop("request", Verdict.DENIED, f"Refused before policy is asked, as {error.status}: {error}.")
        except Elsewhere as error:
            where = error.target.decode("latin-1")
            self._stop("request", Verdict.DENIED, f"The client is told to come back with the path {where} (307).")
        target = head.target.decode("latin-1").partition("?")[0]
        written = "" if target == path.partition("?")[0] else f", which is decided about and forwarded as {target}"
        names = sorted({name.decode() for name, _ in head.headers})
        headers = f", with the headers {', '.join(names)}" if names else ""
        assumed = "" if self._asked.path or self._asked.method else " (nothing else was asked: see --method and --path)"
        self._good("request", f"{method} {path.partition('?')[0]}{written}{headers}{assumed}.")
        return head

    # --- the external service ------------------------------------------------------------------------------------

    def _endpoints(self, service: Service, names: tuple[ServerName, ...]) -> None:
        endpoints = names[0].endpoints
        if not endpoints:
            text = f"{service.name} has no endpoint: nothing is registered that can be reached (no_endpoints)."
            self._stop("endpoints", Verdict.NOT_SERVED, text)
        healthy = [one for one in endpoints if one.healthy]
        unwell = len(healthy) < len(endpoints) or bool(self._standing.left_out)
        self._add("endpoints", State.NOTE if unwell else State.GOOD, *way.endpoints(self._standing, service, names[0]))

    # --- steps ---------------------------------------------------------------------------------------------------

    def _good(self, about: str, *lines: str) -> None:
        self._add(about, State.GOOD, *lines)

    def _note(self, about: str, state: State, *lines: str) -> None:
        self._add(about, state, *lines)

    def _add(self, about: str, state: State, *lines: str) -> None:
        self._steps.append(Step(about, state, lines))

    def _stop(self, about: str, verdict: Verdict, sentence: str, *lines: str) -> NoReturn:
        self._add(about, State.BAD, *(lines or (sentence,)))
        self._end(verdict, sentence)

    def _end(self, verdict: Verdict, sentence: str) -> NoReturn:
        self._verdict, self._sentence = verdict, sentence
        raise _Blocked


def _which(service: Service, mesh: Mesh, matching: tuple[Intention, ...]) -> Iterator[str]:
    """Which intention decides, and which lose to it."""
    if service.intentions is None:
        yield "The intentions of this service are not known yet: everybody is refused (policy_unknown)."
        return
    default = (
        f"is {mesh.default_action.value}" if mesh.default_action is not None else "is not known yet, which refuses"
    )
    others = len(service.intentions) - len(matching)
    if not matching:
        beside = f" of {others}" if others else ""
        yield f"No intention{beside} concerns this caller, so the default action decides: it {default}."
        return
    first = matching[0]
    yield f"{intention_text(first)} decides: {_what(first)}."
    for one in matching[1:]:
        why = "its precedence is lower" if one.precedence < first.precedence else "Consul lists it later"
        yield f"{intention_text(one)} matches too and loses, since {why}: {_what(one)}."
    if len(matching) > 1:
        yield "An exact destination goes before `*`, and then an exact source; the order in an entry does not matter."
    if others:
        concern = "1 other intention of the service concerns" if others == 1 else f"{others} other intentions concern"
        yield f"{concern} other callers."
    if first.layer7 and first.permissions and service.http is not None:
        yield f"What matches none of its permissions is decided by the default action, which {default}."


def _what(intention: Intention) -> str:
    parts = []
    if intention.permissions:
        parts.append(f"{len(intention.permissions)} permission{'s' if len(intention.permissions) > 1 else ''}")
    if intention.tokens:
        parts.append(f"a token of {' or '.join(one.provider for one in intention.tokens)}")
    if intention.layer7 and not parts:
        parts.append("permissions that are not understood, which deny")
    return " and ".join(parts) or intention.action.value


def _capital(line: str) -> str:
    return line[:1].upper() + line[1:]
