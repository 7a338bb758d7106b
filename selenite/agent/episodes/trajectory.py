"""An episode as it was: the conversation, the calls, and how it came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selenite.agent.tasks.task import Task
from selenite.agent.values.kind import Value
from selenite.agent.world.records import Records
from selenite.agent.world.world import Event
from selenite.types import Message, ToolSpec


@dataclass(frozen=True)
class Turn:
    """What an agent does next: calls, or only a text. ``is_trained``: False for a turn that the
    agent itself finds wrong a moment later."""

    content: str
    calls: tuple[tuple[str, Mapping[str, Value]], ...] = ()
    is_trained: bool = True


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
    after: Records
    ended: str  # done, patience, or turns: too many of them
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
            "messages": [openai_message(message) for message in self.messages],
            "tools": [openai_tool(tool) for tool in self.tools],
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
    def id(self) -> str:
        """Of the task, and of the defect."""
        return f"{self.task.id}-{self.defect}" if self.defect else self.task.id


def openai_message(message: Message) -> dict[str, Any]:
    """A message as OpenAI's chat API has it."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["content"] = message.content or None
        found["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found


def openai_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as OpenAI's chat API has it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}
