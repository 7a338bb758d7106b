"""An episode as it was: the conversation, the calls, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selenite.agent.tasks.task import Task
from selenite.agent.values.kind import Value
from selenite.agent.world.domain import Domain
from selenite.agent.world.records import Records
from selenite.agent.world.world import Event
from selenite.chat.openai_form import tool_entry, wire_message
from selenite.types import Message, ToolSpec


@dataclass(frozen=True)
class Turn:
    """What an agent does next: calls, or only a text. ``is_trained``: False for a turn that the
    agent itself finds wrong a moment later."""

    content: str
    calls: tuple[tuple[str, Mapping[str, Value]], ...] = ()
    is_trained: bool = True


@dataclass(frozen=True)
class Stage:
    """When the user went on to another wish: the place of its message, and the records then."""

    message: int
    records: Records


@dataclass(frozen=True)
class Trajectory:
    """One episode. ``before`` and ``after`` are the world's records."""

    task: Task
    persona: int
    agent: int
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    events: tuple[Event, ...]
    before: Records
    stages: tuple[Stage, ...]
    after: Records
    ended: str  # done, patience, gave_up (a model's agent had no turn), or turns: too many of them
    told: Mapping[str, int] = field(default_factory=dict)  # message in which a slot was told first
    untrained: frozenset[int] = frozenset()  # messages of the assistant that no loss is on
    defect: str = ""  # that was put in on purpose; "": none
    models: Mapping[str, str] = field(default_factory=dict)  # by role; empty: no model

    def record(self) -> dict[str, Any]:
        """As a file has it; messages in OpenAI's form."""
        return {
            "id": self.id,
            "task": self.task.record(),
            "persona": self.persona,
            "agent": self.agent,
            "messages": [wire_message(message) for message in self.messages],
            "tools": [tool_entry(tool) for tool in self.tools],
            "events": [
                {
                    "tool": event.tool,
                    "arguments": dict(event.arguments),
                    "result": event.reply.content,
                    "before": event.before,
                    "after": event.after,
                }
                for event in self.events
            ],
            "ended": self.ended,
            "untrained": sorted(self.untrained),
            "defect": self.defect,
            "models": dict(self.models),
        }

    @property
    def domain(self) -> Domain:
        """In which it took place."""
        return self.task.setting.evolved

    @property
    def id(self) -> str:
        """Of the task, and of the defect."""
        return f"{self.task.id}-{self.defect}" if self.defect else self.task.id
