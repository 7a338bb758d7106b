"""Reach a number with given ones, each used once: the game of 24, and its easier sisters."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from selenite.rl.gym.answers import AnswerError, polynomial, tokens
from selenite.rl.gym.environment import Check
from selenite.rl.gym.questions import Question

_TRIES = 10_000


def countdown(rng: random.Random, level: int) -> Question:
    """Three small numbers, four that make 24, five that make a number up to 100."""
    for _ in range(_TRIES):
        numbers = [rng.randint(1, (9, 9, 12)[level - 1]) for _ in range(2 + level)]
        target = _combined(rng, numbers)
        wanted = (target != max(numbers) and 5 <= target <= 40, target == 24, 30 <= target <= 100)
        if wanted[level - 1] and target not in numbers:
            break
    else:
        raise AssertionError("no numbers were found")
    shown = ", ".join(map(str, numbers))
    return Question(
        f"Use each of the numbers {shown} exactly once, with +, -, *, / and parentheses, to make "
        f"{target}. Answer with the calculation alone.",
        Calculation(tuple(numbers), target),
    )


def _combined(rng: random.Random, numbers: Sequence[int]) -> int:
    """A value that the numbers can make, above 0."""
    values = [*numbers]
    while len(values) > 1:
        a, b = (values.pop(rng.randrange(len(values))) for _ in range(2))
        made = [a + b, abs(a - b), a * b]
        if min(a, b) and max(a, b) % min(a, b) == 0:
            made.append(max(a, b) // min(a, b))
        values.append(rng.choice(made))
    return values[0]


@dataclass(frozen=True)
class Calculation:
    """Judges a calculation."""

    numbers: tuple[int, ...]
    target: int

    def __call__(self, text: str) -> Check:
        """A text may repeat the target: ``(8 - 2) * 4 = 24``."""
        left, sign, right = text.strip().strip("$`* ").partition("=")
        try:
            used = sorted(token for token in tokens(left) if token[0].isdecimal())
            if used != sorted(map(str, self.numbers)):
                return Check("answer", 0.0, f"the numbers used are {', '.join(used) or 'none'}")
            if "^" in tokens(left) or "**" in tokens(left):
                return Check("answer", 0.0, "a power is none of the signs allowed")
            value = polynomial(left, "").get(0, Fraction(0))
        except AnswerError as error:
            return Check("answer", 0.0, str(error))
        if sign and right.strip() != str(self.target):
            return Check("answer", 0.0, f"it ends in {right.strip()[:20]!r}")
        if value != self.target:
            return Check("answer", 0.0, f"it makes {value}")
        return Check("answer", 1.0)
