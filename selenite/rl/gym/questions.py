"""Environments of one turn: a question, and what is looked at in the answer.

The answer stands in a slot, the reply's last line: ``Answer: 42``. What comes before is free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selenite.rl.gym.environment import Budget, Check, Score
from selenite.types import Message, ToolSpec

Judge = Callable[[str], Check]
"""Of the text in the slot."""

SLOT = "Write the answer on the last line, as “Answer: ...”."
_LINE = re.compile(r"^[\s*_#>-]*answer[\s*_]*:[\s*_]*(.*?)[\s*_]*$", re.IGNORECASE)
_LONGEST = 400  # characters of an answer; what is longer is not read


@dataclass(frozen=True)
class Question:
    """A task of one turn. Equal numbers give equal questions."""

    text: str
    judge: Judge


class Questions:
    """An ``Environment`` whose tasks are questions."""

    def __init__(self, name: str, budget: Budget, make: Callable[[int], Question]) -> None:
        self.name = name
        self.budget = budget
        self.question = make  # of a number

    def begin(self, number: int) -> Answered:
        """See ``Environment``."""
        return Answered(self.question(number))


class Answered:
    """An attempt at a question."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._reply: str | None = None
        self.opening: Sequence[Message] = (Message("user", f"{question.text}\n{SLOT}"),)
        self.tools: Sequence[ToolSpec] = ()

    def reply(self, turn: Message) -> Sequence[Message]:
        """Nothing follows an answer."""
        self._reply = turn.content
        return ()

    def score(self) -> Score:
        """Of the text in the slot; 0 where there is none, or where there are several."""
        found = slot(self._reply or "")
        if isinstance(found, Check):
            return Score((found,))
        return Score((Check("slot", 1.0), self._question.judge(found)))


def slot(reply: str) -> str | Check:
    """What stands in the slot, or why nothing does: one answer, on the last line."""
    lines = [line for line in reply.splitlines() if line.strip()]
    places = [place for place, line in enumerate(lines) if _LINE.match(line)]
    if not places:
        return Check("slot", 0.0, "no line begins with “Answer:”")
    if len(places) > 1:
        return Check("slot", 0.0, f"{len(places)} answers are given")
    if places[0] != len(lines) - 1:
        return Check("slot", 0.0, "something follows the answer")
    match = _LINE.match(lines[-1])
    assert match is not None
    if len(match[1]) > _LONGEST:
        return Check("slot", 0.0, f"the answer has over {_LONGEST} characters")
    return match[1]
