"""A model on a domain of tau2, between doing nothing and the solution: ``selenite eval tau2``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.progress import Progress

from selenite.agent.models.cache import Cache
from selenite.agent.models.endpoint import Endpoint as ModelEndpoint
from selenite.agent.models.failure import Fault, Reason
from selenite.agent.models.model import Model
from selenite.agent.models.rate import Limits, RateLimiter
from selenite.agent.models.retry import RetryPolicy
from selenite.client.endpoint import Endpoint
from selenite.clock import SystemClock
from selenite.errors import ConfigError, DataError
from selenite.eval.measure import Target, serving
from selenite.eval.tau2.agents import ModelPlayer
from selenite.eval.tau2.episode import DONE, Episode
from selenite.eval.tau2.process import Process, running
from selenite.eval.tau2.report import Measured
from selenite.eval.tau2.run import GOLD, LLM, NULL, Table, bounds, run, unjudged
from selenite.eval.tau2.task import Domain, Player, Task, read_domain
from selenite.eval.tau2.users import ModelUser
from selenite.log import CONSOLE
from selenite.types import ToolSpec

DOMAINS = ("retail", "airline", "telecom", "mock")
_DONE = ToolSpec(
    DONE, "Ends the work on the ticket, when all is done.", {"type": "object", "properties": {}}
)
_MOST_ERRORS = 0.005  # share of the episodes
_TIMEOUT = 1800.0  # seconds of one request
_RETRIES = 3


class _Patience(RetryPolicy):
    """An empty reply is not asked for again: by the same seed it is the same."""

    def pause(self, fault: Fault, retry: int, key: str) -> float | None:
        return None if fault.reason is Reason.EMPTY else super().pause(fault, retry, key)


@dataclass(frozen=True)
class Options:
    """How a domain is played. All of it is in the result file."""

    mode: str
    trials: int
    temperature: float
    max_tokens: int
    guided: bool
    concurrency: int
    limit: int | None  # tasks, the first ones


@contextmanager
def opened(name: str, split: str | None, limit: int | None) -> Iterator[tuple[Process, Domain]]:
    """A domain's process, and its first tasks. Raises ``ConfigError`` for an unknown domain, and
    what ``running`` raises."""
    if name not in DOMAINS:
        raise ConfigError(f"domain {name!r}: must be one of {', '.join(DOMAINS)}")
    split = split or ("base" if name == "mock" else "test")
    with running(name, split) as (process, described):
        domain = read_domain(name, split, described)
        yield process, replace(domain, tasks=domain.tasks[:limit])


def measure(
    name: str,
    split: str | None,
    target: Target | None,
    user: Target | None,
    out: Path,
    options: Options,
) -> Measured:
    """The bounds, and what the target achieves. ``user`` is the model of the mode ``llm``.

    Answers are kept in ``out`` by the fingerprints of both, so that a run that was interrupted goes
    on. Raises ``DataError`` where the pipeline fails in more than one episode of 200.
    """
    with ExitStack() as stack:
        process, domain = stack.enter_context(opened(name, split, options.limit))
        progress = stack.enter_context(Progress(console=CONSOLE, transient=True))
        whole = Table(process, domain, options.mode)
        count = len(domain.tasks)
        bar = progress.add_task(f"{name}: bounds", total=2 * count)
        found = bounds(whole, partial(progress.advance, bar))
        left_out = unjudged(found)
        table = whole.without(left_out)
        kept = {
            agent: [episode for episode in own if episode.task not in left_out]
            for agent, own in found.items()
        }
        if target is not None:
            folder = out / target.folder
            model = _model(target, "agent", options, Cache(folder / "tau2"))
            agent = _Players(stack.enter_context(model), table, options).agent
            other = None
            if options.mode == LLM:
                assert user is not None
                model = _model(user, "user", options, Cache(folder / f"tau2-{user.folder}"))
                other = _Players(stack.enter_context(model), table, options).user
            bar = progress.add_task(
                f"{name}: {target.title}", total=len(table.domain.tasks) * options.trials
            )
            episodes = run(
                table,
                options.trials,
                options.concurrency,
                agent,
                other,
                partial(progress.advance, bar),
            )
            _check(episodes)
            kept = {NULL: kept[NULL], target.title: episodes, GOLD: kept[GOLD]}
    return Measured(name, domain.split, left_out, kept)


@contextmanager
def _model(target: Target, name: str, options: Options, cache: Cache) -> Iterator[Model]:
    clock = SystemClock()
    with serving(target, options.concurrency) as (server, served):
        endpoint = _endpoint(server, served, options, is_ours=target.directory is not None)
        limiter = RateLimiter(Limits(at_once=options.concurrency), clock)
        retry = _Patience(retries=_RETRIES)
        with Model(
            endpoint, name, cache=cache, limiter=limiter, retry=retry, repairs=0, clock=clock
        ) as model:
            yield model


def _endpoint(server: Endpoint, model: str, options: Options, is_ours: bool) -> ModelEndpoint:
    extra = {"constrain_calls": False} if is_ours and not options.guided else {}
    return ModelEndpoint(server.path("/v1"), model, server.api_key, timeout=_TIMEOUT, extra=extra)


@dataclass(frozen=True)
class _Players:
    """One model in one role."""

    model: Model
    table: Table
    options: Options

    def player(self, role: str, tools: Sequence[ToolSpec], task: Task, trial: int) -> ModelPlayer:
        return ModelPlayer(
            self.model,
            tools,
            (self.table.domain.name, task.id, trial, role),
            self.options.temperature,
            self.options.max_tokens,
            must_call=self.table.is_solo,
        )

    def agent(self, task: Task, trial: int) -> Player:
        domain = self.table.domain
        alone = (*domain.user_tools, _DONE) if self.table.is_solo else ()
        return self.player("agent", (*domain.tools, *alone), task, trial)

    def user(self, task: Task, trial: int) -> Player:
        tools = self.table.domain.user_tools
        return ModelUser(self.player("user", tools, task, trial), tools)


def _check(episodes: Sequence[Episode]) -> None:
    # A user that a model plays may fail by itself: that is told, and no fault of the pipeline.
    faults = [e for e in episodes if e.error and not e.user_fault]
    if len(faults) > _MOST_ERRORS * len(episodes):
        raise DataError(
            f"the pipeline failed in {len(faults)} of {len(episodes)} episodes ({faults[0].task}: "
            f"{faults[0].error}), so there is no score; call the same command again"
        )
