"""Messages and tools as they cross the border to another interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selenite.types import Message, ToolCall, ToolSpec


def lines_of(message: Message) -> dict[str, Any]:
    """A message of an environment."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = _calls(message)
    if message.tool_call_id is not None:
        found["tool_call_id"] = message.tool_call_id
    return found


def turn_lines(turn: Message) -> dict[str, Any]:
    """A turn of the model."""
    return {"content": turn.content, "reasoning": turn.reasoning, "tool_calls": _calls(turn)}


def message_of(lines: Mapping[str, Any]) -> Message:
    """The message."""
    calls = tuple(ToolCall(**call) for call in lines.get("tool_calls", ()))
    return Message(
        lines["role"],
        lines["content"],
        tool_calls=calls,
        tool_call_id=lines.get("tool_call_id"),
    )


def turn_of(lines: Mapping[str, Any]) -> Message:
    """The model's turn."""
    calls = tuple(ToolCall(**call) for call in lines["tool_calls"])
    return Message("assistant", lines["content"], tool_calls=calls, reasoning=lines["reasoning"])


def tool_lines(tool: ToolSpec) -> dict[str, Any]:
    """A tool."""
    return {"name": tool.name, "description": tool.description, "parameters": tool.parameters}


def tool_of(lines: Mapping[str, Any]) -> ToolSpec:
    """The tool."""
    return ToolSpec(lines["name"], lines["description"], lines["parameters"])


def _calls(message: Message) -> list[dict[str, str]]:
    return [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls
    ]
