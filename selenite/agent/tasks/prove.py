"""Proofs that come with a task: its solution reaches the goal, and nothing less does.

A solution is played without a dialogue: its calls in their order, each retried while it fails for a
while and done again after a conflict. What must be said is checked with the dialogue (``judges``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from selenite.agent.randomness import stream
from selenite.agent.tasks.draft import Unfit
from selenite.agent.tasks.goal import Goal
from selenite.agent.tasks.mutations import near_misses
from selenite.agent.tasks.plan import Given, Read, Step, sources_of, value_of
from selenite.agent.tasks.task import Task
from selenite.agent.values.kind import Value
from selenite.agent.world.records import Records
from selenite.agent.world.reply import RETRYABLE, Code, Reply
from selenite.agent.world.world import World

_RETRIES = 4


@dataclass(frozen=True)
class Played:
    """A world in which steps were tried."""

    before: Records
    world: World
    replies: tuple[Reply, ...]
    went_as_planned: bool


def play(task: Task, steps: Sequence[Step]) -> Played:
    """The steps in a new world. Stops at one that goes wrong, or whose source is not there."""
    world = task.setting.open()
    before = world.records.copy()
    replies: list[Reply] = []
    for step in steps:
        try:
            arguments = resolved(task, step, replies)
        except LookupError:
            return Played(before, world, tuple(replies), False)
        reply = call(world, step.tool, arguments)
        replies.append(reply)
        if reply.code is not step.fails:
            return Played(before, world, tuple(replies), False)
    return Played(before, world, tuple(replies), True)


def call(world: World, tool: str, arguments: Mapping[str, Value]) -> Reply:
    """A call that is tried again while that may help. A call whose deadline passed may have been
    done: it is tried again only where a key makes that safe, which the task's author sees to."""
    reply = world.call(tool, arguments)
    for _ in range(_RETRIES):
        if reply.code not in RETRYABLE and reply.code is not Code.CONFLICT:
            break
        reply = world.call(tool, arguments)
    return reply


def resolved(task: Task, step: Step, replies: Sequence[Reply]) -> dict[str, Value]:
    """The step's arguments, by what came back before."""
    contents = [reply.content for reply in replies]
    return {name: value_of(source, task.slots, contents) for name, source in step.sources.items()}


def reached(task: Task, free: Mapping[str, Collection[str]]) -> Goal:
    """The goal that the solution reaches; ``Unfit`` where the proof fails."""
    played = play(task, task.steps)
    if not played.went_as_planned:
        raise Unfit("the solution does not work in its world")
    goal = Goal.between(played.before, played.world.records, free)
    faults = list(_unproved(replace(task, goal=goal), played))
    if faults:
        raise Unfit("; ".join(faults))
    return goal


def milestones(task: Task, free: Mapping[str, Collection[str]]) -> tuple[Goal, ...]:
    """What the solution has reached after each wish but the last one."""
    found, steps = list[Goal](), list[Step]()
    for phase in task.phases[:-1]:
        steps += phase.steps
        played = play(task, steps)
        found.append(Goal.between(played.before, played.world.records, free))
    return tuple(found)


def unproved(task: Task) -> Iterator[str]:
    """What does not hold of a task, each in a line:

    - the solution reaches the goal, which is more than nothing where something is written;
    - every argument has a source, and what is read was read before;
    - no near miss (``mutations.py``) reaches it.
    """
    return _unproved(task, play(task, task.steps))


def _unproved(task: Task, whole: Played) -> Iterator[str]:
    if not whole.went_as_planned or task.goal.unmet(whole.before, whole.world.records):
        yield "the solution does not reach the goal"
        return
    if any(step.is_write for step in task.steps) and not task.goal.predicates:
        yield "the writes leave no trace"
    yield from _unfounded(task)
    rng = stream(task.setting.seed, "near misses", task.number)
    for wrong, calls in near_misses(task, whole.world.domain, whole.world, rng):
        world = task.setting.open()
        for tool, arguments in calls:
            call(world, tool, arguments)
        if not task.goal.unmet(whole.before, world.records):
            yield f"{wrong}: it does as well"


def _unfounded(task: Task) -> Iterator[str]:
    """Arguments of the solution that come from nowhere."""
    for place, step in enumerate(task.steps):
        for name, source in step.sources.items():
            for part in sources_of(source):
                match part:
                    case Given(slot) if slot not in task.slots:
                        yield f"call {place}: {name} is known to nobody"
                    case Read(before) if before >= place:
                        yield f"call {place}: {name} is not known yet"
