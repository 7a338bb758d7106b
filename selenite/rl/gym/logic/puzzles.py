"""The environment ``logic``: puzzles by number, in three levels."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from selenite.agent.randomness import stream
from selenite.rl.gym.environment import Budget
from selenite.rl.gym.logic.countdown import countdown
from selenite.rl.gym.logic.cryptarithm import cryptarithm
from selenite.rl.gym.logic.knights import knights
from selenite.rl.gym.logic.morse import morse
from selenite.rl.gym.logic.sudoku import sudoku
from selenite.rl.gym.logic.tables import tables
from selenite.rl.gym.questions import Question, Questions

KINDS: Mapping[str, Callable[[random.Random, int], Question]] = {
    "countdown": countdown,
    "cryptarithm": cryptarithm,
    "knights": knights,
    "morse": morse,
    "sudoku": sudoku,
    "tables": tables,
}


def logic_questions(
    level: int, seed: int = 0, kinds: tuple[str, ...] = tuple(KINDS), tokens: int = 256
) -> Questions:
    """``level`` is 1 to 3; ``kinds`` are names of ``KINDS``; ``tokens`` are those that an attempt
    may write."""

    def make(number: int) -> Question:
        rng = stream(seed, "logic", level, number)
        return KINDS[rng.choice(kinds)](rng, level)

    return Questions("logic", Budget(tokens), make)
