"""A task: a place, what a user wants and knows, a solution that was tried, and what decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from selenite.agent.randomness import stream
from selenite.agent.tasks.goal import Goal
from selenite.agent.tasks.plan import Phase, Slot, Step
from selenite.agent.values.kind import Value
from selenite.agent.world.setting import Setting


class TaskClass(StrEnum):
    """What an episode trains (K2 synthesis, the shares are ours: ``author.py``)."""

    CLEAN = "clean"
    PARALLEL = "parallel"
    TRANSIENT = "transient"
    OUTAGE = "outage"
    REPAIR = "repair"
    CONFLICT = "conflict"
    MUST_ASK = "must_ask"
    NO_TOOL = "no_tool"
    FORBIDDEN = "forbidden"
    DENIED = "denied"
    INJECTION = "injection"
    PARTIAL = "partial"
    CHANGE_OF_MIND = "change_of_mind"
    LONG_OUTPUT = "long_output"


@dataclass(frozen=True)
class Blunder:
    """A call that the agent gets wrong at first, and what is wrong with it."""

    step: int
    parameter: str
    value: Value  # MISSING: left out


MISSING = "\0missing"


@dataclass(frozen=True)
class Task:
    """One task. A function of the repository's seed and of ``number``: see ``author.py``."""

    id: str
    number: int
    template: str
    cls: TaskClass
    setting: Setting
    slots: Mapping[str, Slot]
    phases: tuple[Phase, ...]
    goal: Goal
    milestones: tuple[Goal, ...]  # what is so after each wish but the last one
    tools: tuple[str, ...]  # that the agent has, in the order in which it sees them
    withheld: frozenset[str] = frozenset()  # slots that the user tells when asked
    mistaken: Mapping[str, Value] = field(default_factory=dict)  # said wrong at first, by slot
    blunder: Blunder | None = None
    forbidden: tuple[str, ...] = ()  # tools that must not be called
    confirms: bool = False  # deleting needs the user's yes

    @property
    def steps(self) -> tuple[Step, ...]:
        """Of all phases."""
        return tuple(step for phase in self.phases for step in phase.steps)

    @property
    def needs_no_call(self) -> bool:
        return not self.steps

    def with_fewer_tools(self, most: int) -> Task:
        """The task with at most so many tools that it is not about, in the order that they had."""
        about = {*(step.tool for step in self.steps), *self.forbidden}
        others = [name for name in self.tools if name not in about]
        rng = stream(self.setting.seed, "tools", self.number)
        kept = about | set(rng.sample(others, min(most, len(others))))
        return replace(self, tools=tuple(name for name in self.tools if name in kept))

    def record(self) -> dict[str, Any]:
        """As a file has it."""
        return {
            "id": self.id,
            "template": self.template,
            "class": self.cls.value,
            "setting": {
                "seed": self.setting.seed,
                "domain": self.setting.domain,
                "world": self.setting.world,
                "extension": self.setting.extension,
            },
            "known": {
                slot.name: slot.value
                for slot in self.slots.values()
                if slot.name not in self.withheld
            },
            "withheld": {name: self.slots[name].value for name in sorted(self.withheld)},
            "request": [phase.request for phase in self.phases],
            "oracle": [
                {"tool": step.tool, "arguments": dict(step.arguments)} for step in self.steps
            ],
            "goal": self.goal.record(),
            "milestones": [goal.record() for goal in self.milestones],
            "must_say": [a.forms[0] for phase in self.phases for a in phase.answers],
            "forbidden": list(self.forbidden),
            "tools": list(self.tools),
        }
