"""What the page says besides figures."""

from __future__ import annotations

import textwrap

from bench.scale.fleet import INSTANCES

_WIDTH = 150


def markdown(text: str) -> list[str]:
    """Paragraphs, and list items that begin with a hyphen, are divided by empty lines; each is filled anew."""
    lines: list[str] = []
    former = ""
    for part in text.strip().split("\n\n"):
        listed = part.lstrip().startswith("- ")
        if lines and not (listed and former.lstrip().startswith("- ")):
            lines.append("")
        lines += textwrap.wrap(
            " ".join(part.split()),
            _WIDTH,
            subsequent_indent="  " if listed else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        former = part
    return lines


INTRODUCTION = markdown(
    f"""
Written by `make scale`, which runs each gateway in turn on the same Consul agent, with the same catalog and the same
changes. Every service has {INSTANCES} instances with a check each, and an intention. What a fleet needs follows from
these figures: [capacity.md](capacity.md). Why a change costs what it concerns:
[070](decisions/070-a-change-costs-what-it-concerns.md).
"""
)
WHERE_IT_BENDS = markdown(
    """
Both axes are logarithmic: what grows in proportion has the slope one. Where the lines bend, and why:

- A first start is as long as Consul takes to sign: a leaf for each service, 50 a second for all clients of the servers
together (`csr_max_per_second`). With the leaves in the agent it is the agent's answers and the gateway's own work.

- A check that turns, or an intention, costs the gateway a read of that service, and a list that grows with the
datacenter, not with the links: of checks that fail, of intentions.

- An instance that comes or goes costs a read of every service beyond the first 26, since Consul says only that some
service has changed. This happens in a quarter of the time at most.

- The agent follows every gateway that is registered with it as if an Envoy were there, with watches of its own for each
service. Much of what a change costs the agent is that, with either gateway.
"""
)
MANY = markdown(
    """
On an agent that only answers, with every leaf at hand: what is left is the work of the gateway. A real agent adds the
time to sign.
"""
)
METHOD = markdown(
    """
- One dev agent; the catalog holds the services of all sizes at once, and the gateways link different ones. Gateways run
alone, one after the other, with one worker, without access log, each first with services of which no leaf was ever
signed. All are served when the gateway says so (`/api/status`; for Envoy its clusters) and a client of the last one is
let in.

- CPU is of all threads of a process (`schedstat`). What a change costs is above what idling costs in the same time;
four changes each, two seconds apart; 0.0 is less than what idling varies by. Memory is proportional (PSS).

- Change to effect: the intention of one service is denied and allowed in turns; a client with a leaf of Consul's CA
connects every few milliseconds until it is refused, or let in. The clock starts just before the write. The p99 of
twenty is the longest, and what takes longer than a minute counts as a minute.

- The storm: 100 changes a second as far as Consul takes them, intentions and checks of other linked services in turns.

- Commands are timed as a whole, with the start of the interpreter.
"""
)
