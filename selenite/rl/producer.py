"""Groups of rollouts for the trainer, some of them begun before they are asked for.

    admitted ── oldest first ──► [in flight ......][complete ..] ── take(count) ──► trainer

With ``ahead`` groups beyond those that a step needs, the step waits for as many as it needs, not
for the longest: what is left goes on in the next one, under new weights. Old groups are waited for,
not thrown away, which would leave the long and the hard ones out: what was begun is trained.

The engine runs while groups are waited for, and not while the trainer has the processor.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import mean
from typing import Any, Protocol, TypeVar

from selenite.rl.actor import Actor
from selenite.rl.rollout import TAUGHT, Rollout
from selenite.rl.tasks import Assigned, TaskStream

Result = TypeVar("Result")


class GroupSource(Protocol):
    """Where the trainer has its rollouts from: a ``Producer``, or ``journal.Replay``."""

    def take(
        self, count: int, version: int, temperature: float, limits: Mapping[str, int]
    ) -> list[list[Rollout]]:
        """``count`` complete groups for an iteration."""
        ...

    def attempt(
        self, tasks: Sequence[Assigned], size: int, seed: int, temperature: float
    ) -> list[list[Rollout]]:
        """Groups of these tasks, for evaluation."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken."""
        ...

    def close(self) -> None:
        """Ends what runs."""
        ...


@dataclass(frozen=True)
class _Open:
    """A group that was begun."""

    task: Assigned
    version: int  # of the weights that it began with
    rollouts: Future[list[Rollout]]


class Producer:
    """Makes groups in an asyncio loop of its own. ``close`` it after use.

    Args:
        actor: makes the rollouts.
        stream: of tasks.
        size: rollouts of a group.
        seed: of all sampling.
        ahead: groups that are begun beyond those that a step needs.
        most_stale: updates that a group may outlive at most.
    """

    def __init__(
        self,
        actor: Actor,
        stream: TaskStream,
        size: int,
        seed: int,
        ahead: int = 0,
        most_stale: int = 1,
    ) -> None:
        self._actor, self._stream = actor, stream
        self._size, self._seed = size, seed
        self._ahead, self._most_stale = ahead, most_stale
        self._open = list[_Open]()  # oldest first
        self._again = list[Assigned]()  # begun before a run was interrupted
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rollouts", daemon=True)
        self._thread.start()

    def take(
        self, count: int, version: int, temperature: float, limits: Mapping[str, int]
    ) -> list[list[Rollout]]:
        """``count`` complete groups, the oldest ones; begins what is missing.

        Args:
            count: of groups.
            version: of the weights that serve now.
            temperature: of groups that begin now.
            limits: tokens that their attempts may write, by environment, where that is less than
                the environment's own budget.
        """
        while len(self._open) < count + self._ahead:
            task = self._again.pop(0) if self._again else self._stream.take()
            limit = limits.get(task.environment.name)
            group = self._actor.group(task, self._size, self._seed, temperature, limit)
            self._open.append(_Open(task, version, self._submit(group)))
        with self._running():
            complete = self._wait(count, version)
        taken = complete[:count]
        self._open = [one for one in self._open if one not in taken]
        groups = [one.rollouts.result() for one in taken]
        for one, rollouts in zip(taken, groups, strict=True):
            rewards = [max(0.0, own.reward) for own in rollouts if own.status in TAUGHT]
            if rewards:
                self._stream.tell(one.task, mean(rewards))
        return groups

    def _wait(self, count: int, version: int) -> list[_Open]:
        """The groups that are complete, once they are enough and none that is not is too old."""
        while True:
            complete = [one for one in self._open if one.rollouts.done()]
            waits = [one.rollouts for one in self._open if not one.rollouts.done()]
            too_old = [one for one in self._open if one.version <= version - self._most_stale]
            if len(complete) >= count and all(one in complete for one in too_old):
                return complete
            wait(waits, return_when=FIRST_COMPLETED)

    def attempt(
        self, tasks: Sequence[Assigned], size: int, seed: int, temperature: float
    ) -> list[list[Rollout]]:
        """Groups of these tasks, now: for evaluation."""
        groups = [self._submit(self._actor.group(task, size, seed, temperature)) for task in tasks]
        with self._running():
            return [group.result() for group in groups]

    def state_dict(self) -> dict[str, Any]:
        """What a run needs that goes on: tasks that were given, and those that are in flight."""
        tasks = [one.task for one in self._open] + self._again
        return {
            "stream": self._stream.state_dict(),
            "open": [[task.environment.name, task.number, task.visit] for task in tasks],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on; what was in flight begins again, before anything new."""
        self._stream.load_state_dict(state["stream"])
        self._again = [self._stream.assigned(*task) for task in state["open"]]

    def close(self) -> None:
        """Ends what runs, and the loop."""
        self._submit(_cancel_all()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._actor.resume()
        try:
            yield
        finally:
            self._actor.pause()

    def _submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _cancel_all() -> None:
    """All that runs in this loop but for the caller."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
