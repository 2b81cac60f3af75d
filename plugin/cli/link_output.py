"""How ``link`` and ``unlink`` carry out a plan and say what they did: one place for both, and their exit codes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec

from plugin.answers.status import Status
from plugin.cli.admin_client import NotRunning, fetch
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden
from plugin.linking.edit import Refused
from plugin.linking.hcl import to_hcl
from plugin.linking.plan import Plan
from plugin.linking.writer import Outcome, carry_out, missing_rules
from plugin.settings import ConsulSettings

EXIT_REFUSED = 1
EXIT_PARTLY = 3
EXIT_NOT_SEEN = 4
EXIT_CODES = (
    "Exit code: 0 done, or there was nothing to do; 1 refused: nothing was changed; 2 Consul cannot be asked, or did"
    " not take the first change: nothing was changed; 3 a part was done and the rest was not: both are listed, and the"
    " same command goes on; 4 all was written, but the gateway has not followed within --wait."
)

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """Which of the ways to show, and whether to do anything."""

    dry_run: bool
    as_hcl: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.as_hcl and self.as_json:
            raise click.UsageError("--hcl and --json are two ways to show the same thing: choose one")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFor:
    """How long to wait until a running gateway has followed; ``wait_s`` 0 asks it nothing."""

    service: str
    gateway: str
    served: bool
    wait_s: float
    admin_address: str
    runtime_dir: Path | None


@dataclass(slots=True)
class Answer:
    """What ``--json`` prints."""

    result: str = "unchanged"
    """``changed``, ``unchanged``, ``planned``, ``refused``, ``failed`` or ``partly``."""
    done: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    """With ``--dry-run`` what would be done, else what was not."""
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""
    rules: tuple[str, ...] = ()
    """The ACL rules that are missing."""
    gateway: str = ""
    """What the running gateway says of it."""
    entries: list[Any] = field(default_factory=list)
    registration: Any = None


Planner = Callable[[ConsulClient], Awaitable[Plan]]


def perform(planner: Planner, showing: Showing, waiting: WaitFor) -> int:
    """Plan, do and say; the exit code. :raises ConsulError, ConfigError: when Consul could not be asked at all."""
    answer = Answer()
    try:
        plan, outcome = asyncio.run(_perform(planner, answer, write=not (showing.dry_run or showing.as_hcl)))
    except Refused as refused:
        answer.result, answer.problem = "refused", str(refused)
        _say_refused(refused, answer, as_json=showing.as_json)
        return EXIT_REFUSED
    if showing.as_hcl:
        click.echo(_files(plan), nl=False)
        return 0
    code = _code(answer, outcome)
    if code == 0 and outcome is not None and waiting.wait_s > 0:
        followed, answer.gateway = wait(waiting)
        code = 0 if followed else EXIT_NOT_SEEN
    _say(answer, as_json=showing.as_json)
    return code


async def _perform(planner: Planner, answer: Answer, *, write: bool) -> tuple[Plan, Outcome | None]:
    async with ConsulClient(ConsulSettings.from_environment()) as client:
        plan = await planner(client)
        answer.kept, answer.notes = plan.kept, plan.notes
        answer.entries, answer.registration = list(plan.entries), plan.registration
        answer.rules = await missing_rules(client, plan.permissions)
        if not write:
            answer.todo = tuple(phrase for step in plan.steps for phrase in step.todo)
            return plan, None
        if answer.rules:
            raise Refused("the token may not do it")
        return plan, await carry_out(client, plan)


def _code(answer: Answer, outcome: Outcome | None) -> int:
    if outcome is None:
        answer.result = "planned" if answer.todo else "unchanged"
        return EXIT_REFUSED if answer.rules else 0
    answer.done, answer.todo = outcome.done, outcome.left
    if outcome.problem is None:
        answer.result = "changed" if outcome.done else "unchanged"
        return 0
    answer.problem = str(outcome.problem)
    if isinstance(outcome.problem, ConsulForbidden) and outcome.problem.rule:
        answer.rules = tuple(outcome.problem.rule.splitlines())
    answer.result = "partly" if outcome.done else "refused" if isinstance(outcome.problem, Refused) else "failed"
    return {"partly": EXIT_PARTLY, "refused": EXIT_REFUSED, "failed": 2}[answer.result]


def wait(waiting: WaitFor) -> tuple[bool, str]:
    """Ask the gateway on this host until it has followed. True also when none runs here: there is nothing to see."""
    deadline_s = time.monotonic() + waiting.wait_s
    verb = "serves" if waiting.served else "does not serve"
    while True:
        try:
            status = _status(waiting)
        except NotRunning:
            how = f"consul-tgw status --service {waiting.gateway}"
            return True, f"no gateway {waiting.gateway} answers on this host; where it runs, `{how}` shows it"
        if _followed(status, waiting):
            return True, f"the gateway {status.service_id} {verb} {waiting.service}"
        if time.monotonic() >= deadline_s:
            why = "; ".join(r for one in status.services if one.name == waiting.service for r in one.reasons)
            text = f"the gateway {status.service_id} has not followed within {waiting.wait_s:.0f} s"
            return False, f"{text}: {why}" if why else text
        time.sleep(_POLL_S)


def _status(waiting: WaitFor) -> Status:
    """:raises NotRunning: also when it is another gateway that answers at the address."""
    body = fetch(
        "/api/status",
        service="" if waiting.admin_address else waiting.gateway,
        admin_address=waiting.admin_address,
        runtime_dir=waiting.runtime_dir,
    )
    status = msgspec.json.decode(body, type=Status)
    if status.service != waiting.gateway:
        raise NotRunning(f"the gateway at {waiting.admin_address} is {status.service}")
    return status


def _followed(status: Status, waiting: WaitFor) -> bool:
    found = next((one for one in status.services if one.name == waiting.service), None)
    served = found is not None and found.served and not found.reasons and bool(found.endpoints)
    current = all(worker.generation == status.generation for worker in status.workers)
    return current and (served if waiting.served else found is None or not found.served)


def _say(answer: Answer, *, as_json: bool) -> None:
    if as_json:
        _say_json(answer)
        return
    _lines("there already", answer.kept)
    _lines("done", answer.done)
    _lines("would" if answer.result == "planned" else "not done", answer.todo)
    _lines("note", answer.notes)
    _lines("gateway", (answer.gateway,) if answer.gateway else ())
    if answer.result == "unchanged":
        click.echo("nothing to change")
    if answer.problem:
        click.echo(f"consul-tgw: {answer.problem}", err=True)
        if answer.result == "partly":
            click.echo("run the same command again when that is mended: it goes on with what was not done", err=True)
    _lines("missing ACL rule", answer.rules)


def _say_refused(refused: Refused, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        _say_json(answer)
        return
    for reason in refused.reasons:
        click.echo(f"consul-tgw: {reason}", err=True)
    for rule in answer.rules:
        click.echo(f"  missing ACL rule: {rule}", err=True)
    click.echo("nothing was changed", err=True)


def _say_json(answer: Answer) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())


def _lines(label: str, phrases: tuple[str, ...]) -> None:
    for phrase in phrases:
        click.echo(f"{label}: {phrase}")


def _files(plan: Plan) -> str:
    """The entries for ``consul config write``, and the registration for ``curl``."""
    parts = [f"# consul config write {one['Kind']}-{one['Name']}.hcl\n{to_hcl(one)}" for one in plan.entries]
    if plan.registration is not None:
        body = msgspec.json.format(msgspec.json.encode(plan.registration), indent=2).decode()
        # The quoted here-document keeps every character as it is.
        parts.append(f"# curl -X PUT $CONSUL_HTTP_ADDR/v1/catalog/register -d @register.json\n{body}\n")
    return "\n".join(parts)
