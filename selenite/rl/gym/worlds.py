"""Our tool worlds as an environment: a user, tools that act on records, and the task's rubric.

A task is one of ``agent.tasks``. Its score is the product of the rubric's checks: the records as
they should be and nothing else changed, answers told, nothing forbidden called, and so on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from selenite.agent.episodes.episode import Play, play_script, setup
from selenite.agent.episodes.trajectory import Trajectory, Turn
from selenite.agent.judges.rubric import CHECKS
from selenite.agent.ontology.acceptance import admit, examine
from selenite.agent.roles.arguments import fit, read_arguments
from selenite.agent.synthesis.splits import Split, split_of
from selenite.agent.tasks.author import RECIPES, make_task
from selenite.agent.tasks.task import Task, TaskClass
from selenite.errors import ConfigError
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, Score
from selenite.types import Message, ToolSpec

_STRIDE = 1000  # numbers of the corpus that are tried for a task
_FIRST = 2_000_000  # beyond those of corpora and of evaluation

_HELD_OUT: frozenset[Split] = frozenset({"category", "domain"})


class WorldTask:
    """An attempt at a task. ``trajectory`` is what happened, for whoever looks closer."""

    def __init__(self, task: Task) -> None:
        known = setup(task)
        self._by_name = known.world.domain.by_tool
        self._play = Play(task, known.world, known.user, known.style, known.who)
        self.opening: Sequence[Message] = tuple(self._play.messages)
        self.tools: Sequence[ToolSpec] = self._play.tools

    @property
    def trajectory(self) -> Trajectory:
        """Of what has happened so far."""
        return self._play.trajectory()

    def reply(self, turn: Message) -> Sequence[Message]:
        """Results of the calls, or the user's words."""
        calls = [
            (call.name or "unknown", read_arguments(call.arguments, self._by_name.get(call.name)))
            for call in turn.tool_calls
        ]
        is_right = all(fit(self._by_name.get(name), arguments) for name, arguments in calls)
        more = self._play.take(Turn(turn.content, tuple(calls), is_trained=is_right))
        if not calls:
            return more
        ids = [call.id for call in turn.tool_calls]
        return [
            dataclasses.replace(result, tool_call_id=id)
            for result, id in zip(more, ids, strict=True)
        ]

    def score(self) -> Score:
        """By the rubric, check by check."""
        trajectory = self.trajectory
        found = []
        for name, check in CHECKS.items():
            faults = list(check(trajectory))
            found.append(Check(name, float(not faults), "; ".join(faults)))
        return Score(tuple(found))


class Worlds:
    """Tasks in domains of a seed.

    Args:
        seed: of the domains.
        domains: how many are tried, the first ones.
        classes: of the tasks.
        states: as in a corpus (``SynthesisConfig.states``).
        unused_tools: the most tools that a task has beside those that it is about; None: all.
        budget: of an attempt.
    """

    name = "worlds"

    def __init__(
        self,
        seed: int,
        domains: int,
        classes: Sequence[TaskClass] = tuple(RECIPES),
        states: int = 0,
        unused_tools: int | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget(tokens=512, turns=16)
        self._seed, self._classes, self._states = seed, tuple(classes), states
        self._unused_tools = unused_tools
        self._domains = admit(seed, (examine(seed, number) for number in range(domains))).numbers

    def begin(self, number: int) -> WorldTask:
        """See ``Environment``. Tasks below ``HELD_OUT`` are of training's side, the others of
        domains and categories that it never has."""
        return WorldTask(self.task(number))

    def task(self, number: int) -> Task:
        """The task of a number. Raises ``ConfigError`` where the domains have none."""
        splits = _HELD_OUT if number >= HELD_OUT else frozenset[Split]({"train"})
        first = _FIRST + number * _STRIDE
        for tried in range(first, first + _STRIDE):
            task = self._made(tried)
            if task is None:
                continue
            script = play_script(task)
            assert script is not None
            if split_of(script) in splits and not _pays_for_silence(task):
                return task
        raise ConfigError(
            f"worlds: no task of {', '.join(sorted(splits))} in {len(self._domains)} domains; "
            "raise domains, or take other classes"
        )

    def _made(self, number: int) -> Task | None:
        try:
            task = make_task(
                self._seed, number, self._domains, 1, classes=self._classes, states=self._states
            )
        except ConfigError:  # the domain of this number has none of these
            return None
        return task if self._unused_tools is None else task.with_fewer_tools(self._unused_tools)


def _pays_for_silence(task: Task) -> bool:
    """Whether nothing need be done or said, as in small talk: any reply would be as good."""
    silent = WorldTask(task)
    silent.reply(Message("assistant", ""))
    return silent.score().value == 1
