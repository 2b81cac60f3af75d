"""Gathers what is in force for whoever explains it, and what the workers remember: asked by the admin pages."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import msgspec

from plugin.answers.status import open_by_service
from plugin.explain.answer import Explanation, PastRecord, Recollected
from plugin.explain.caller import service_name
from plugin.explain.explanation import explain
from plugin.explain.request import Question
from plugin.explain.standing import Standing
from plugin.gateway import Gateway
from plugin.observe.freshness import Freshness
from plugin.observe.store import FactStore
from plugin.settings import GatewaySettings
from plugin.workers.pool import Workers
from plugin.workers.published import Published
from plugin.workers.worker import Worker, WorkerGone
from proxy.messages import Recall, Recollection
from proxy.model import ServiceName

ANSWER_TIMEOUT_S = 5.0
_decoder = msgspec.json.Decoder(PastRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    settings: GatewaySettings
    published: Published
    gateway: Gateway
    store: FactStore
    workers: Workers
    freshness: Freshness

    async def explain(self, asked: Question) -> Explanation:
        """:raises ConfigError: when the question names nobody or nothing."""
        name = service_name(asked.destination)
        answers, problems = await self._recall(Recall(0, service=name, limit=0))
        left_out = [
            f"{endpoint} by worker {worker.index}" for worker, answer in answers for endpoint in answer.left_out
        ]
        return explain(self.standing(name, tuple(left_out), problems), asked, now_s=time.time())

    def standing(
        self, name: ServiceName, left_out: tuple[str, ...] = (), worker_problems: tuple[str, ...] = ()
    ) -> Standing:
        linked = self.published.linked
        known = linked is not None and name in linked
        service = self.published.services.get(name)
        counters = [worker.counters for worker in self.workers.all if worker.counters is not None]
        limits = self.settings.limits(max(1, len(self.workers.all)))
        own = service.max_connections if service is not None else None
        return Standing(
            name=name,
            gateway=self.settings.service,
            entry=self.store.entry.fact.value,
            links_known=linked is not None,
            linked=known,
            from_wildcard=known and self.store.service_facts(name).from_wildcard,
            others=tuple(sorted(str(one) for one in linked or () if one != name)),
            service=service,
            mesh=self.published.mesh,
            problems=self.gateway.problems_of(name) or self.gateway.mesh_problems,
            warnings=(*self._warnings(name), *worker_problems) if known else (),
            left_out=left_out,
            matches=(self.store.service_facts(name).intentions.value or ()) if known else (),
            too_old=self.freshness.too_old,
            open_connections=open_by_service(counters).get(str(name), 0),
            most_connections=limits.service_connections if own is None else own,
            generation=self.published.generation,
        )

    async def recent(self, asked: Recall, worker: int | None) -> Recollected:
        """``worker`` is the index of the one that is asked; ``None``: all."""
        answers, problems = await self._recall(asked, worker)
        records = [_decoder.decode(line) for _, answer in answers for line in answer.records]
        return Recollected(tuple(records), problems)

    def _warnings(self, name: ServiceName) -> tuple[str, ...]:
        said = [worker.problems[name] for worker in self.workers.all if name in worker.problems]
        return tuple(dict.fromkeys((*said, *self.gateway.warnings_of(name))))

    async def _recall(
        self, asked: Recall, index: int | None = None
    ) -> tuple[list[tuple[Worker, Recollection]], tuple[str, ...]]:
        """The answers, and which workers gave none."""
        workers = [one for one in self.workers.all if index in (None, one.index)]
        answers = await asyncio.gather(
            *(one.recall(asked, ANSWER_TIMEOUT_S) for one in workers), return_exceptions=True
        )
        found: list[tuple[Worker, Recollection]] = []
        problems: list[str] = []
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, WorkerGone):
                problems.append(str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append((worker, answer))
        return found, tuple(problems)
