"""Conversations from files: JSON lines in the form of OpenAI's fine-tuning.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …, "weight": 0}],
     "tools": [{"type": "function", "function": {…}}], "needed": ["get_weather"]}

A turn of the assistant with weight 0 is read but not learnt. ``needed`` (ours) names tools that
must stay although nobody calls them, such as the one that a policy forbids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from selenite.data.documents import ReadReport, SourceFile, decode, reading, stable_fraction
from selenite.data.rows import expand, numbered_lines, parse_json
from selenite.errors import DataError
from selenite.types import Message, ToolCall, ToolSpec

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ChatRow:
    """One conversation."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    untrained: frozenset[int]  # places of assistant's turns without a loss
    needed: frozenset[str]  # tools that stay: those that are called, and those that the row names
    key: float  # in [0, 1), by what it says: decides what is held out


def read_chat_rows(paths: Sequence[str]) -> list[ChatRow]:
    """The conversations of files or globs, in the order of file and line; ``.gz`` and ``.zst``
    are decompressed.

    Raises ``DataError``, with file and line, for what is missing, malformed, or has nothing to
    learn.
    """
    rows = [row for file in expand(tuple(paths), "chat") for row in _rows_of(file)]
    if not rows:
        raise DataError(f"{', '.join(paths)}: no conversations; give files that have some")
    return rows


def _rows_of(file: SourceFile) -> Iterator[ChatRow]:
    with reading(file.file):
        for number, line in numbered_lines(file.file):
            place = f"{file.file}, line {number}"
            text = decode(line, place, "error", ReadReport())
            if text is not None and text.strip():
                yield _row(parse_json(text, place), place, text)


def _row(value: Any, place: str, text: str) -> ChatRow:
    try:
        numbers = count()
        messages = tuple(_message(entry, numbers) for entry in value["messages"])
        tools = tuple(_tool(entry) for entry in value.get("tools") or ())
        weights = [entry.get("weight", 1) for entry in value["messages"]]
        needed = frozenset(map(str, value.get("needed") or ()))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(
            f"{place}: no conversation in OpenAI's form ({reason}); mend or remove the line"
        ) from error
    untrained = frozenset(i for i, weight in enumerate(weights) if weight == 0)
    own = {i for i, message in enumerate(messages) if message.role == "assistant"}
    if not own - untrained:
        raise DataError(
            f"{place}: no turn of the assistant to learn from; give one, or remove the line"
        )
    called = {call.name for message in messages for call in message.tool_calls}
    unknown = (called | needed) - {tool.name for tool in tools}
    if unknown:
        raise DataError(
            f"{place}: {', '.join(sorted(unknown))}: called or needed, but not among the tools; "
            "add it to them"
        )
    return ChatRow(messages, tools, untrained, needed | called, stable_fraction(text, "chat"))


def _message(entry: Any, numbers: Iterator[int]) -> Message:
    role = entry["role"]
    if role not in _ROLES:
        raise ValueError(f"role {role!r} is none of {', '.join(_ROLES)}")
    content = entry.get("content")
    if not (content is None or isinstance(content, str)):
        raise ValueError(f"content must be a text, not {type(content).__name__}")
    calls = tuple(_call(call, next(numbers)) for call in entry.get("tool_calls") or ())
    if calls and role != "assistant":
        raise ValueError(f"calls of a {role}")
    return Message(role, content or "", tool_calls=calls, tool_call_id=entry.get("tool_call_id"))


def _call(entry: Any, number: int) -> ToolCall:
    """A call without an id gets the one that a K2 model would write."""
    function = entry["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        raise ValueError("arguments of a call must be JSON text")
    if not isinstance(json.loads(arguments), dict):
        raise ValueError("arguments of a call must be an object")
    name = str(function["name"])
    return ToolCall(name, arguments, str(entry.get("id") or f"functions.{name}:{number}"))


def _tool(entry: Any) -> ToolSpec:
    function = entry["function"]
    return ToolSpec(
        str(function["name"]), str(function.get("description", "")), function.get("parameters", {})
    )
