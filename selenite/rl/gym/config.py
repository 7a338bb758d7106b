"""Which environments a run has: one table each."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Discriminator, Field

from selenite.config import Config
from selenite.rl.gym.environment import Environment
from selenite.rl.gym.logic.puzzles import KINDS, logic_questions
from selenite.rl.gym.math_problems import math_questions

Puzzle = Literal["countdown", "cryptarithm", "knights", "morse", "sudoku", "tables"]
_PUZZLES: tuple[Puzzle, ...] = get_args(Puzzle)
assert set(_PUZZLES) == set(KINDS), "each puzzle has its name"


class _Part(Config):
    weight: float = Field(default=1.0, gt=0)  # share of the groups, relative to the others
    seed: int = Field(default=0, ge=0)  # of the tasks
    tokens: int = Field(default=256, ge=1)  # that an attempt may write


class MathPart(_Part):
    """Mathematics with exact answers."""

    kind: Literal["math"] = "math"
    level: Literal[1, 2, 3] = 1

    def open(self) -> Environment:
        """The environment."""
        return math_questions(self.level, self.seed, self.tokens)


class LogicPart(_Part):
    """Puzzles."""

    kind: Literal["logic"] = "logic"
    level: Literal[1, 2, 3] = 1
    puzzles: tuple[Puzzle, ...] = Field(default=_PUZZLES, min_length=1)

    def open(self) -> Environment:
        """The environment."""
        return logic_questions(self.level, self.seed, self.puzzles, self.tokens)


EnvironmentPart = Annotated[MathPart | LogicPart, Discriminator("kind")]
