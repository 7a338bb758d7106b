"""All tasks of a domain, played; and what they add up to.

Modes differ in the user: ``ticket`` tells all at once (and where the user has tools, the agent gets
them and is alone), ``slots`` is code that tells what it is asked, ``llm`` is a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from selenite.agent.workers import threads
from selenite.errors import DataError
from selenite.eval.question import TOO_LONG
from selenite.eval.statistics import pass_hat_k, wilson
from selenite.eval.tau2.agents import GoldAgent, NullAgent
from selenite.eval.tau2.episode import OF_TAU2, Episode, play
from selenite.eval.tau2.process import Process
from selenite.eval.tau2.slot_user import SlotUser
from selenite.eval.tau2.task import Domain, Player, Task
from selenite.eval.tau2.users import TicketUser

TICKET, SLOTS, NEXT_ACTION, LLM = "ticket", "slots", "next-action", "llm"
MODES = (TICKET, SLOTS, NEXT_ACTION, LLM)
NULL, GOLD = "null", "gold"

MakePlayer = Callable[[Task, int], Player]
"""Of a task and a trial."""


@dataclass(frozen=True)
class Table:
    """A domain in one mode."""

    process: Process
    domain: Domain
    mode: str

    @property
    def is_solo(self) -> bool:
        """Whether agents play without a user."""
        return self.mode == TICKET and self.domain.is_solo

    def user(self, task: Task) -> Player | None:
        """One that is code; for bounds also where the user is a model."""
        if self.is_solo:
            return None
        if self.mode == TICKET:
            return TicketUser(task)
        return SlotUser(task, self.domain.user_tools, self.domain.writes)

    def without(self, tasks: Sequence[str]) -> Table:
        """The same with some tasks left out."""
        kept = tuple(task for task in self.domain.tasks if task.id not in tasks)
        return replace(self, domain=replace(self.domain, tasks=kept))


_numbers = count()  # of episodes, in any process


def run(
    table: Table,
    trials: int,
    at_once: int,
    agent: MakePlayer,
    user: MakePlayer | None = None,
    on_episode: Callable[[], None] = lambda: None,
) -> list[Episode]:
    """All trials of all tasks, in order; ``user`` is for ``llm``."""

    def one(job: tuple[Task, int]) -> Episode:
        task, trial = job
        other = table.user(task) if user is None else user(task, trial)
        episode = play(table.process, next(_numbers), task, trial, agent(task, trial), other)
        on_episode()
        return episode

    jobs = [(task, trial) for task in table.domain.tasks for trial in range(trials)]
    with threads(at_once) as pool:
        return list(pool.map(one, jobs))


def bounds(table: Table, on_episode: Callable[[], None] = lambda: None) -> dict[str, list[Episode]]:
    """What doing nothing and the solution achieve."""

    def null(task: Task, trial: int) -> Player:
        return NullAgent(table.is_solo)

    def gold(task: Task, trial: int) -> Player:
        return GoldAgent(task, table.is_solo, asks=table.mode != TICKET)

    agents = {NULL: null, GOLD: gold}
    return {name: run(table, 1, 2, agent, on_episode=on_episode) for name, agent in agents.items()}


def unjudged(found: dict[str, list[Episode]]) -> tuple[str, ...]:
    """Tasks of which tau2 itself raises in a bound: they are in no score.

    Raises ``DataError`` for an error of any other kind in a bound, since what happens once on a
    busy machine must not decide on which tasks a model is scored.
    """
    failed = [episode for each in found.values() for episode in each if episode.error]
    for episode in failed:
        if not episode.error.startswith(OF_TAU2):
            raise DataError(
                f"the pipeline failed in the bounds ({episode.task}: {episode.error}), so there is "
                "no score; call the same command again"
            )
    return tuple(dict.fromkeys(episode.task for episode in failed))


def summary(episodes: Sequence[Episode], trials: int) -> dict[str, Any]:
    """pass^1 with its interval over tasks, pass^k up to the trials, and what went wrong."""
    judged = [episode for episode in episodes if episode.is_judged]
    counts = Counter(episode.task for episode in judged)
    whole = [task for task, number in counts.items() if number == trials]
    passed = Counter(episode.task for episode in judged if episode.passes)
    successes = [passed[task] for task in whole]
    # Trials of one task are not independent: the interval is that of as many tasks.
    share = sum(successes) / (trials * len(whole)) if whole else 0.0
    low, high = wilson(round(share * len(whole)), len(whole))
    faults = Counter(episode.fault for episode in judged if episode.fault)
    breaches = Counter(episode.user_fault for episode in episodes if episode.user_fault)
    return {
        "tasks": len(whole),
        "pass^k": [pass_hat_k(successes, trials, k) for k in range(1, trials + 1)] if whole else [],
        "low": low,
        "high": high,
        "errors": len(episodes) - len(judged),
        "too_long": faults.pop(TOO_LONG, 0),
        "faults": dict(faults.most_common()),
        "ended": dict(Counter(episode.ended for episode in judged if episode.ended).most_common()),
        "user_faults": dict(breaches.most_common()),
        "user_fault_share": sum(breaches.values()) / max(1, len(episodes)),
        "turns": sum(episode.turns for episode in judged) / max(1, len(judged)),
        "calls": sum(episode.calls for episode in judged) / max(1, len(judged)),
    }


def lift(share: float, floor: float) -> float:
    """How much of what doing nothing leaves is achieved."""
    return (share - floor) / (1 - floor) if floor < 1 else 0.0
