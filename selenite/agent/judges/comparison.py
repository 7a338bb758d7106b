"""The question which of two conversations is better, as a critic is taught and asked it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selenite.types import Message

LETTERS = ("A", "B")
"""What a verdict begins with: of the first conversation, and of the second."""

_SYSTEM = (
    "You compare two conversations of an assistant with the same user and tools. Answer with the "
    "letter of the better one, then say what is wrong with the other."
)


def comparison(told: str, first: str, second: str, rubrics: Sequence[str] = ()) -> list[Message]:
    """What a critic is asked. ``told`` is what both were given; each rubric is a sentence."""
    rules = "".join(f"\n- {rubric}" for rubric in rubrics)
    question = (
        f"{told}\n\nConversation A:\n{first}\n\nConversation B:\n{second}\n\n"
        + (f"What counts:{rules}\n\n" if rubrics else "")
        + "Which is better?"
    )
    return [Message("system", _SYSTEM), Message("user", question)]


def transcript(messages: Sequence[Mapping[str, Any]]) -> str:
    """A line for each turn, call and result of messages in OpenAI's form."""
    lines = list[str]()
    for message in messages:
        if message.get("content"):
            lines.append(f"{message['role']}: {message['content']}")
        for call in message.get("tool_calls") or ():
            function = call["function"]
            lines.append(f"call: {function['name']} {function['arguments']}")
    return "\n".join(lines)
