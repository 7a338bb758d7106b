"""Is the conversation well formed: roles in order, ids that match, arguments that fit."""

from __future__ import annotations

import json
from itertools import pairwise

from selenite.agent.episodes.trajectory import Trajectory
from selenite.types import Message, ToolCall

_AFTER = {
    "system": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"tool", "assistant"},
}


def faults(trajectory: Trajectory) -> list[str]:
    """What is not well formed."""
    messages = trajectory.messages
    found = [
        f"message {i + 1}: {after.role} after {before.role}"
        for i, (before, after) in enumerate(pairwise(messages))
        if after.role not in _AFTER[before.role]
    ]
    if [m.role for m in messages[:2]] != ["system", "user"] or messages[-1].role != "assistant":
        found.append("it must begin with system and user, and end with the assistant")
    for i, message in enumerate(messages):
        if message.role == "assistant":
            found += _calls(trajectory, i, message)
            if not message.content and not message.tool_calls:
                found.append(f"message {i}: empty")
    return found


def _calls(trajectory: Trajectory, place: int, message: Message) -> list[str]:
    calls, found = message.tool_calls, []
    answers = trajectory.messages[place + 1 : place + 1 + len(calls)]
    if [answer.tool_call_id for answer in answers] != [call.id for call in calls]:
        found.append(f"message {place}: calls and answers do not match")
    if len({call.id for call in calls}) != len(calls):
        found.append(f"message {place}: an id twice")
    if place in trajectory.untrained:
        return found
    return found + [
        f"message {place}: {fault}" for call in calls if (fault := _fault(trajectory, call))
    ]


def _fault(trajectory: Trajectory, call: ToolCall) -> str | None:
    if call.name not in trajectory.task.tools:
        return f"{call.name} was not offered"
    try:
        arguments = json.loads(call.arguments)
    except json.JSONDecodeError as error:
        return f"arguments of {call.name}: {error}"
    tool = trajectory.domain.by_tool[call.name]
    if not isinstance(arguments, dict):
        return f"arguments of {call.name} are no object"
    for name, value in arguments.items():
        if name not in tool.by_name or not tool.by_name[name].kind.accepts(value):
            return f"{call.name}: {name}={value!r} does not fit the schema"
    missing = [p.name for p in tool.params if p.required and p.name not in arguments]
    return f"{call.name}: {missing[0]} is missing" if missing else None
