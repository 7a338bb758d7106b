"""A question of a single turn, and what an agent answers: text, calls, or both."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from selenite.types import Message, ToolSpec

TOO_LONG = "the prompt does not fit into the context"


@dataclass(frozen=True)
class Call:
    """One call. ``arguments`` is None where they are no JSON object."""

    name: str
    arguments: Mapping[str, Any] | None


def read_call(name: str, arguments: str | None) -> Call:
    """A call whose arguments are JSON text, or should be."""
    try:
        table = json.loads(arguments or "{}")
    except (ValueError, RecursionError):  # the latter: nested without end
        table = None
    return Call(str(name), table if isinstance(table, dict) else None)


@dataclass(frozen=True)
class Question:
    """What an agent is asked. ``id`` is unique in its suite."""

    id: str
    category: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]

    @property
    def request(self) -> str:
        """The last text of the user."""
        return next(m.content for m in reversed(self.messages) if m.role == "user")


@dataclass(frozen=True)
class Answer:
    """What came back.

    ``malformed`` counts what was meant as a call and is none. ``error`` is a fault of the pipeline
    (a server away, an answer that is no answer), never of the agent: such answers have no score.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    malformed: int = 0
    error: str = ""
    too_long: bool = False  # the prompt did not fit into the context: wrong, whatever was due
    record: Mapping[str, Any] = field(default_factory=dict)  # the raw answer, if there was one


@dataclass(frozen=True)
class Verdict:
    """What came of one answer; ``reason`` says why it is wrong."""

    is_right: bool
    reason: str = ""


@dataclass(frozen=True)
class Suite:
    """Questions of single turns, what would be right, and who decides."""

    name: str
    version: str  # of the questions and of the checker
    questions: tuple[Question, ...]
    gold: Mapping[str, Answer]  # by question
    judge: Callable[[Mapping[str, Answer]], Mapping[str, Verdict]]  # answers with an error: none

    @property
    def categories(self) -> list[str]:
        """In the order of the questions."""
        return list(dict.fromkeys(question.category for question in self.questions))
