"""An environment of ours whose scores differ: how many letters of a reply are vowels."""

from __future__ import annotations

from collections.abc import Sequence

from selenite.rl.gym.environment import Budget, Check, Score
from selenite.types import Message, ToolSpec


class Talk:
    """An attempt of two turns."""

    tools: Sequence[ToolSpec] = ()

    def __init__(self, number: int) -> None:
        self.opening = [Message("system", "Be brief."), Message("user", f"Say {number}.")]
        self.said: list[str] = []

    def reply(self, turn: Message) -> Sequence[Message]:
        self.said.append(turn.content)
        return [Message("user", "Say it again.")] if len(self.said) == 1 else []

    def score(self) -> Score:
        shares = [sum(letter in "aeiou" for letter in text) / len(text) for text in self.said]
        return Score(tuple(Check(f"turn {n}", share) for n, share in enumerate(shares)))


class Letters:
    """An ``Environment``."""

    def __init__(self, tokens: int) -> None:
        self.name, self.budget = "letters", Budget(tokens, turns=2)

    def begin(self, number: int) -> Talk:
        return Talk(number)
