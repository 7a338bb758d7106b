"""Messages and tools as OpenAI's API writes them."""

from __future__ import annotations

from typing import Any

from selenite.types import Message, ToolCall, ToolSpec


def wire_message(message: Message) -> dict[str, Any]:
    """A turn. Reasoning is sent where the message has it: some models want their own back."""
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        entry["name"] = message.name
    if message.tool_call_id is not None:
        entry["tool_call_id"] = message.tool_call_id
    if message.reasoning is not None:
        entry["reasoning_content"] = message.reasoning
    if message.tool_calls:
        entry["content"] = message.content or None
        entry["tool_calls"] = [_wire_call(call) for call in message.tool_calls]
    return entry


def wire_tool(tool: ToolSpec) -> dict[str, Any]:
    """A tool as it is offered."""
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }


def wire_choice(choice: str) -> str | dict[str, Any]:
    """``none``, ``auto``, ``required``, or a tool by its name."""
    if choice in ("none", "auto", "required"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _wire_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}
