"""A task while it is written: each call is tried at once, in a copy of the world."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from selenite.agent.ontology.entity import Entity
from selenite.agent.tasks.plan import (
    Answer,
    Given,
    Phase,
    Read,
    Slot,
    Source,
    Step,
    sources_of,
    value_of,
)
from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import Kind, Value, spoken
from selenite.agent.world.domain import Domain
from selenite.agent.world.records import Record
from selenite.agent.world.reply import Code, Reply
from selenite.agent.world.world import World

_RETURN_RECORDS = ("get", "extreme", "create", "duplicate", "update", "items", "move")
_GUARDED = ("move", "update", "delete")


class Unfit(Exception):  # noqa: N818 - no error: another world may do
    """Raised where a template finds nothing to do in a world."""


class Draft:
    """The steps and slots of a task so far, and the world after them."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.slots: dict[str, Slot] = {}
        self.steps: list[Step] = []
        self.replies: list[Reply] = []
        self.phases: list[Phase] = []
        self.missing: Tool | None = None  # that the agent does not have
        self.lasting: dict[str, Code] = {}  # tools that fail for good
        self._first = 0  # step of the phase that is written

    @property
    def domain(self) -> Domain:
        return self.world.domain

    def entities(self) -> list[Entity]:
        """Those that have records, in random order; who hands over cases is none of them."""
        found = [e for e in self.domain.entities if self.world.records.of(e.name)]
        return self.rng.sample(found, len(found))

    def tools(self, family: str, entity: str | None = None) -> list[Tool]:
        """Tools of a family, in random order."""
        found = [
            tool
            for tool in self.domain.tools
            if tool.family == family and entity in (None, tool.entity)
        ]
        return self.rng.sample(found, len(found))

    def tool(self, family: str, entity: str | None = None) -> Tool:
        """One of a family; ``Unfit`` where there is none."""
        found = self.tools(family, entity)
        if not found:
            raise Unfit(f"no tool to {family}")
        return found[0]

    def many(self, tool: Tool) -> str:
        """What several records of a tool's entity are called."""
        return spoken(self.domain.by_entity[tool.entity].plural)

    def look(self, entity: str, id: Source) -> tuple[int, tuple[str | int, ...]]:
        """Where a record can be read: in what a call returned already, else by a get."""
        wanted = self.value(id)
        for place in reversed(range(len(self.steps))):
            tool, content = self.domain.by_tool[self.steps[place].tool], self.replies[place].content
            if tool.entity != entity or not self.replies[place].is_ok:
                continue
            if tool.family == "list":
                for i, item in enumerate(content["items"]):
                    if item["id"] == wanted:
                        return place, ("items", i)
            elif tool.family in _RETURN_RECORDS and content["id"] == wanted:
                return place, ()
        get = self.tool("get", entity)
        step, _ = self.call(get, {get.param_of("id").name: id})
        return step, ()

    def any_record(
        self, entity: str, suits: Callable[[Record], bool] = lambda record: True
    ) -> tuple[str, Record]:
        """A record that suits; ``Unfit`` where there is none."""
        found = [item for item in self.world.records.of(entity).items() if suits(item[1])]
        if not found:
            raise Unfit(f"no {entity} that suits")
        return self.rng.choice(found)

    def give(self, name: str, words: str, kind: Kind, value: Value) -> Given:
        """The user knows a value; the same name stands for the same value."""
        while name in self.slots and self.slots[name].value != value:
            name = f"{name}_2" if not name[-1].isdigit() else f"{name[:-1]}{int(name[-1]) + 1}"
        self.slots[name] = Slot(name, words, kind, value)
        return Given(name)

    def value(self, source: Source) -> Value:
        """What a source stands for."""
        return value_of(source, self.slots, [reply.content for reply in self.replies])

    def call(self, tool: Tool, sources: Mapping[str, Source]) -> tuple[int, dict[str, Any]]:
        """Tries a call; returns its place and what came back. ``Unfit`` where it is refused.

        Before a write that a policy guards the record is looked at, whether it is allowed or not.
        """
        if tool.family in _GUARDED and self.domain.policies_of(tool.entity, tool.verb):
            self.look(tool.entity, sources[tool.param_of("id").name])
        arguments = {name: self.value(source) for name, source in sources.items()}
        reply = self.world.call(tool.name, arguments)
        if not reply.is_ok:
            raise Unfit(f"{tool.name}: {reply.text()}")
        is_write = not tool.effect.only_reads
        self.steps.append(Step(tool.name, dict(sources), arguments, is_write, _needs(sources)))
        self.replies.append(reply)
        return len(self.steps) - 1, reply.content

    def fail(self, tool: Tool, sources: Mapping[str, Source], code: Code) -> None:
        """A call that would work, and fails for good, as all tools do that do the same."""
        arguments = {name: self.value(source) for name, source in sources.items()}
        if not self.world.fork().call(tool.name, arguments).is_ok:
            raise Unfit(f"{tool.name} would not work anyway")
        for other in self.domain.tools:
            if (other.entity, other.verb) == (tool.entity, tool.verb):
                self.lasting[other.name] = code
        self.steps.append(Step(tool.name, dict(sources), arguments, False, _needs(sources), code))
        self.replies.append(Reply({}, code))

    def end_phase(
        self,
        requests: Sequence[str],
        details: Sequence[str] = (),
        answers: Sequence[Answer] = (),
        report: str = "",
        is_amendment: bool = False,
        is_exhaustive: bool = False,
        is_whole: bool = True,
    ) -> None:
        """What the user wanted with the steps since the last phase."""
        steps = tuple(self.steps[self._first :])
        self._first = len(self.steps)
        request = self.rng.choice(requests)
        phase = Phase(
            request,
            tuple(details),
            steps,
            tuple(answers),
            report,
            is_amendment,
            is_exhaustive,
            is_whole,
        )
        self.phases.append(phase)

    def replace(self, place: int, sources: Mapping[str, Source]) -> None:
        """Other arguments of a call that was tried, which come to the same."""
        old = self.steps[place]
        arguments = {name: self.value(source) for name, source in sources.items()}
        new = dataclasses.replace(old, sources=dict(sources), arguments=arguments)
        self.steps[place] = new
        self.phases = [
            dataclasses.replace(phase, steps=tuple(new if s is old else s for s in phase.steps))
            for phase in self.phases
        ]

    def reopen(self, phase: Phase) -> None:
        """Goes on with a phase that was taken off the end."""
        self._first = len(self.steps) - len(phase.steps)

    def answer(self, words: str, kind: Kind, value: Value) -> Answer:
        """A value that must be told, in whatever form; the first is that with its unit."""
        forms = [*kind.forms(value, self.world.today), str(value)]
        unit = getattr(kind, "unit", "")
        forms.sort(key=lambda form: not (unit and form.endswith(f" {unit}")))
        return Answer(words, tuple(dict.fromkeys(forms)))


def _needs(sources: Mapping[str, Source]) -> frozenset[int]:
    """The steps that returned something of it."""
    parts = (part for source in sources.values() for part in sources_of(source))
    return frozenset(part.step for part in parts if isinstance(part, Read))
