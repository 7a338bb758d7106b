"""Kimi K2's rule for the ids of tool calls, kept over a whole conversation.

An id is ``functions.NAME:IDX``; IDX counts the calls of the conversation from 0. K2's template
prints ids as they are, and they alone carry the tool's name, so an id of another shape in the
history teaches the model to write such ids itself (Moonshot's tool_call_guidance.md). The same
ids serve models that write none.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Sequence

from selenite.errors import ConversationError
from selenite.types import Message, ToolCall

_PREFIX = "functions."
_INDEX = re.compile(r":[0-9]+$")
_NO_NAME = re.compile(r"[\s\x00-\x1f\x7f\ud800-\udfff]")


def is_tool_name(name: str) -> bool:
    """Whether a tool can have this name: any text without spaces and control characters."""
    return bool(name) and not _NO_NAME.search(name)


def name_in_id(written: str) -> str | None:
    """The tool's name in an id that a model wrote; None where it holds none.

    The prefix or the index may be missing, not both: ``call_59ad`` names no tool. Names hold dots
    and colons themselves, so only the first ``functions.`` and the last ``:IDX`` are cut off.
    """
    written = written.strip()
    name = _INDEX.sub("", written.removeprefix(_PREFIX))
    return name if name != written and is_tool_name(name) else None


class CallIds:
    """The ids that a conversation's calls have, from left to right.

    Depends on the past alone, so an earlier turn keeps its ids whatever follows. Mutable; a
    branch of the conversation takes ``copy()``.
    """

    def __init__(self) -> None:
        self._count = 0
        self._used: set[str] = set()
        self._given: dict[str, list[str]] = {}  # id in the messages to the ids it stands for

    def copy(self) -> CallIds:
        return copy.deepcopy(self)

    def admit(self, name: str, written: str) -> str:
        """The id of the next call: ``written`` if it is good and new, otherwise one by the rule."""
        written = written.strip()
        match = _INDEX.search(written)
        is_shaped = match is not None and written == f"{_PREFIX}{name}{match[0]}"
        good = is_shaped and written not in self._used
        index = self._count
        while not good and f"{_PREFIX}{name}:{index}" in self._used:
            index += 1
        admitted = written if good else f"{_PREFIX}{name}:{index}"
        self._count += 1
        self._used.add(admitted)
        return admitted

    def rewrite(self, messages: Sequence[Message]) -> list[Message]:
        """The next messages with good ids in calls and their results.

        Where one turn gives several calls the same id, results take them in order. Raises
        ``ConversationError`` for a result that answers no call.
        """
        return [self._rewrite_one(message) for message in messages]

    def _rewrite_one(self, message: Message) -> Message:
        if message.role == "tool":
            return dataclasses.replace(message, tool_call_id=self._answered(message.tool_call_id))
        if not message.tool_calls:
            return message
        written = {call.id for call in message.tool_calls}
        self._given.update({id: [] for id in written})
        calls = tuple(self._rewrite_call(call) for call in message.tool_calls)
        # Results may name the new ids too, where no call of this turn was written with them.
        self._given.update({call.id: [call.id] for call in calls if call.id not in written})
        return dataclasses.replace(message, tool_calls=calls)

    def _rewrite_call(self, call: ToolCall) -> ToolCall:
        if not is_tool_name(call.name):
            raise ConversationError(
                f"a call of the tool {call.name!r}: a tool's name is not empty and has no spaces "
                "and control characters; rename it"
            )
        admitted = self.admit(call.name, call.id)
        self._given[call.id].append(admitted)
        return dataclasses.replace(call, id=admitted)

    def _answered(self, written: str | None) -> str:
        waiting = self._given.get(written or "")
        if not waiting:
            known = ", ".join(map(repr, self._given)) or "none"
            raise ConversationError(
                f"a tool result has tool_call_id={written!r}, and no call before it has this id "
                f"(calls so far: {known}); send the assistant turn that made the call with it"
            )
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]
