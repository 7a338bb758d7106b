"""Near misses: a task's solution with one thing wrong. None of them may reach the goal."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from selenite.agent.tasks.goal import Changed
from selenite.agent.tasks.plan import All, Given, Step
from selenite.agent.tasks.task import Task
from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import Value
from selenite.agent.values.texts import Identifier, Reference
from selenite.agent.world.domain import Domain
from selenite.agent.world.world import World

Call = tuple[str, Mapping[str, Value]]


def near_misses(
    task: Task, domain: Domain, end: World, rng: random.Random
) -> Iterator[tuple[str, list[Call]]]:
    """What is wrong, and the calls. ``end`` is the world after the solution.

    Each write left out; one argument of each write another; writes that need one another in the
    wrong order; and one write too many.
    """
    calls: list[Call] = [(step.tool, step.arguments) for step in task.steps]
    writes = [place for place, step in enumerate(task.steps) if step.is_write]
    for place in writes:
        yield f"without call {place}", calls[:place] + calls[place + 1 :]
        other = _fewer(task, task.steps[place]) or _other_argument(
            task.steps, place, domain, end, rng
        )
        if other is not None:
            yield (
                f"call {place} with another argument",
                [
                    *calls[:place],
                    (task.steps[place].tool, other),
                    *calls[place + 1 :],
                ],
            )
    for earlier, later in _pairs(task.steps, writes):
        swapped = list(calls)
        swapped[earlier], swapped[later] = swapped[later], swapped[earlier]
        yield f"calls {earlier} and {later} in the wrong order", swapped
    if writes and (extra := _extra(task, domain, end, rng)) is not None:
        yield "one write too many", [*calls, extra]


def _fewer(task: Task, step: Step) -> dict[str, Value] | None:
    """A list of records without one that the solution changes."""
    changed = {p.id for p in task.goal.predicates if isinstance(p, Changed)}
    for name, source in step.sources.items():
        ids = step.arguments[name]
        if isinstance(source, All) and (gone := next((i for i in ids if i in changed), None)):
            return {**step.arguments, name: [id for id in ids if id != gone]}
    return None


def _other_argument(
    steps: Sequence[Step], place: int, domain: Domain, end: World, rng: random.Random
) -> dict[str, Value] | None:
    """The arguments with one that the user gave, or an id, set to something else; none that a
    later step sets again."""
    step = steps[place]
    tool = domain.by_tool[step.tool]
    later = {
        domain.by_tool[other.tool].by_name[name].field
        for other in steps[place + 1 :]
        if place in other.needs
        for name in other.arguments
    }
    places = [
        p
        for p in tool.params
        if p.name in step.arguments
        and (p.field == "id" or p.field not in later)
        and (isinstance(step.sources[p.name], Given) or isinstance(p.kind, Identifier))
    ]
    for param in rng.sample(places, len(places)):
        old = step.arguments[param.name]
        kind = param.kind
        if isinstance(kind, Identifier):
            entity = kind.entity if isinstance(kind, Reference) else tool.entity
            others = [id for id in end.records.of(entity) if id != old]
            if others:
                return {**step.arguments, param.name: rng.choice(others)}
        else:
            value = kind.draw(rng, end.today)
            if value != old:
                return {**step.arguments, param.name: value}
    return None


def _pairs(steps: Sequence[Step], writes: Sequence[int]) -> Iterator[tuple[int, int]]:
    for later in writes:
        for earlier in steps[later].needs:
            if steps[earlier].is_write:
                yield earlier, later


def _extra(task: Task, domain: Domain, end: World, rng: random.Random) -> Call | None:
    """A call that changes one more record."""
    tools: list[Tool] = [
        tool
        for tool in domain.tools
        if tool.family in ("move", "delete", "duplicate")
        and tool.name not in task.setting.faults.lasting
    ]
    for tool in rng.sample(tools, len(tools)):
        for id in end.records.of(tool.entity):
            arguments = {tool.param_of("id").name: id}
            world = end.fork()
            if (
                world.call(tool.name, arguments).is_ok
                and world.events[0].before != world.events[0].after
            ):
                return tool.name, arguments
    return None
