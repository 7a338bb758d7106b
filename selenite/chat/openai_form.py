"""Messages and tools in the form of OpenAI's chat API."""

from __future__ import annotations

from typing import Any

from selenite.types import Message, ToolSpec


def message_entry(message: Message) -> dict[str, Any]:
    """A message as templates expect it: its content is a text, beside calls too."""
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        entry["name"] = message.name
    if message.tool_call_id is not None:
        entry["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        entry["reasoning_content"] = message.reasoning
    if message.tool_calls:
        entry["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return entry


def wire_message(message: Message) -> dict[str, Any]:
    """A message as it is sent: no text beside calls is null."""
    entry = message_entry(message)
    return entry | {"content": message.content or None} if message.tool_calls else entry


def tool_entry(tool: ToolSpec) -> dict[str, Any]:
    """A tool as it is offered."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    return {"type": "function", "function": function}
