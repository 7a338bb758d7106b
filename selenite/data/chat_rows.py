"""Conversations from files: JSON lines in the form of OpenAI's fine-tuning.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", …, "weight": 0}],
     "tools": [{"type": "function", "function": {…}}], "needed": ["get_weather"], "group": "…"}

A turn of the assistant with weight 0 is read but not learnt. ``needed`` (ours) names tools that
must stay although nobody calls them, such as the one that a policy forbids. Rows of one ``group``
(ours) may have each other's tools: they can be read together. Ids of calls become K2's, as serving
rewrites them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from selenite.chat.call_ids import CallIds
from selenite.data.documents import (
    ReadReport,
    SourceFile,
    decode,
    has_utf8,
    reading,
    stable_fraction,
)
from selenite.data.rows import expand, numbered_lines, parse_json
from selenite.errors import ConversationError, DataError
from selenite.types import Message, ToolCall, ToolSpec

_ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class ChatRow:
    """One conversation."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    untrained: frozenset[int]  # places of assistant's turns without a loss
    needed: frozenset[str]  # tools that stay: those that are called, and those that the row names
    group: str  # rows of one may have each other's tools; empty: of none
    key: float  # in [0, 1), by what it says: decides what is held out
    place: str  # file and line


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
                yield _row(parse_json(text, place), place)


def _row(value: Any, place: str) -> ChatRow:
    try:
        text = json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)
        messages = _messages(value["messages"])
        tools = tuple(_tool(entry) for entry in value.get("tools") or ())
        untrained = frozenset(i for i, e in enumerate(value["messages"]) if _weight(e) == 0)
        needed = frozenset(_names(value.get("needed") or []))
        group = value.get("group") or ""
        if not isinstance(group, str):
            raise ValueError(f"group must be a text, not {type(group).__name__}")
        turns = tuple(CallIds().rewrite(messages))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise DataError(
            f"{place}: no conversation in OpenAI's form ({reason}); mend or remove the line"
        ) from error
    except ConversationError as error:
        raise DataError(f"{place}: {error}; mend or remove the line") from error
    has_utf8(text, place, "error", ReadReport())
    own = {i for i, message in enumerate(messages) if message.role == "assistant"}
    if not any(turns[i].content or turns[i].tool_calls for i in own - untrained):
        raise DataError(
            f"{place}: no turn of the assistant to learn from; give one, or remove the line"
        )
    names = [tool.name for tool in tools]
    called = {call.name for message in messages for call in message.tool_calls}
    unknown = (called | needed) - set(names)
    if unknown:
        raise DataError(
            f"{place}: {', '.join(sorted(unknown))}: called or needed, but not among the tools; "
            "add it to them"
        )
    if len(set(names)) < len(names):
        raise DataError(f"{place}: two tools of one name; remove one")
    key = stable_fraction(text, "chat")
    return ChatRow(turns, tools, untrained, needed | called, group, key, place)


def _messages(entries: Any) -> list[Message]:
    """The turns; calls and results without ids get some."""
    numbers, messages = count(), list[Message]()
    open_ids = list[str]()  # of calls that have no result yet
    for entry in entries:
        message = _message(entry, numbers, open_ids)
        if message.tool_calls:
            open_ids = [call.id for call in message.tool_calls]
        messages.append(message)
    return messages


def _message(entry: Any, numbers: Iterator[int], open_ids: list[str]) -> Message:
    role, content = entry["role"], entry.get("content")
    if role not in _ROLES:
        raise ValueError(f"role {role!r} is none of {', '.join(_ROLES)}")
    if not (content is None or isinstance(content, str)):
        raise ValueError(f"content must be a text, not {type(content).__name__}")
    calls = tuple(_call(call, next(numbers)) for call in entry.get("tool_calls") or ())
    if calls and role != "assistant":
        raise ValueError(f"calls of a {role}")
    answered = None
    if role == "tool":
        first = open_ids.pop(0) if open_ids else None
        answered = entry.get("tool_call_id") or first
    return Message(
        role,
        content or "",
        name=entry.get("name"),
        tool_calls=calls,
        tool_call_id=answered,
        reasoning=entry.get("reasoning_content") if role == "assistant" else None,
    )


def _call(entry: Any, number: int) -> ToolCall:
    function = entry["function"]
    arguments = function["arguments"]
    if not isinstance(arguments, str):
        raise ValueError("arguments of a call must be JSON text")
    if not isinstance(json.loads(arguments, parse_constant=_no_json), dict):
        raise ValueError("arguments of a call must be an object")
    name = str(function["name"])
    return ToolCall(name, arguments, str(entry.get("id") or f"functions.{name}:{number}"))


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _tool(entry: Any) -> ToolSpec:
    function = entry["function"]
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties", {}) if isinstance(parameters, dict) else None
    if not isinstance(properties, dict) or not isinstance(parameters.get("required", []), list):
        raise ValueError("parameters of a tool must be the JSON schema of an object")
    return ToolSpec(str(function["name"]), str(function.get("description") or ""), parameters)


def _weight(entry: Any) -> int:
    weight = entry.get("weight", 1)
    if weight not in (0, 1) or isinstance(weight, bool):
        raise ValueError(f"weight {weight!r} is neither 0 nor 1")
    return int(weight)


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError("needed must be a list of names")
    return value
