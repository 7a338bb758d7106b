"""Questions from a file as an environment of ours, with the reward that the peer has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engines.vowels import share
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.types import Message, ToolSpec


class Prompted:
    """An ``Environment`` of one turn; its tasks are the file's, over and over."""

    name = "prompted"

    def __init__(self, questions: str, tokens: int) -> None:
        self.budget = Budget(tokens)
        self._questions: list[str] = json.loads(Path(questions).read_text(encoding="utf-8"))

    def begin(self, number: int) -> Answer:
        """See ``Environment``."""
        return Answer(self._questions[number % len(self._questions)])


class Answer:
    """An attempt."""

    tools: Sequence[ToolSpec] = ()

    def __init__(self, question: str) -> None:
        self.opening = (Message("user", question),)
        self._said = ""

    def reply(self, turn: Message) -> Sequence[Message]:
        """Nothing follows."""
        self._said = turn.content
        return ()

    def score(self) -> Score:
        """The share of vowels."""
        return Score((Check("vowels", share(self._said)),))
