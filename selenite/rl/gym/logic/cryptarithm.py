"""Letters for digits in a sum, with exactly one solution."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import permutations

from selenite.rl.gym.environment import Check
from selenite.rl.gym.questions import Question

_TRIES = 2000
_LETTERS = "ABCDEFGHKLMNPRST"
_PAIR = re.compile(r"([A-Z])\s*(?:=|IS|:)\s*(\d)")


def cryptarithm(rng: random.Random, level: int) -> Question:
    """A sum of two numbers of up to two or three digits, with three to six letters."""
    top = (100, 100, 1000)[level - 1]
    most = (3, 4, 5)[level - 1]
    for _ in range(_TRIES):
        a, b = rng.randint(10, top - 1), rng.randint(1, top - 1)
        digits = sorted(set(f"{a}{b}{a + b}"))
        if not 3 <= len(digits) <= most:
            continue
        names = dict(zip(digits, rng.sample(_LETTERS, len(digits)), strict=True))
        words = tuple("".join(names[digit] for digit in str(n)) for n in (a, b, a + b))
        sum_of = Sum(*words)
        if sum_of.has_one_solution():
            first, second, whole = words
            return Question(
                f"Each letter stands for a digit of its own, and no number begins with 0: "
                f"{first} + {second} = {whole}. Which digit is each letter? Answer as "
                f"“{names[digits[0]]}=1, ...”.",
                sum_of,
            )
    raise AssertionError("no sum was found")


@dataclass(frozen=True)
class Sum:
    """Judges digits for letters."""

    first: str
    second: str
    whole: str

    @property
    def letters(self) -> list[str]:
        """All that occur."""
        return sorted({*self.first, *self.second, *self.whole})

    def __call__(self, text: str) -> Check:
        """Judges a text; letters that do not occur, or occur twice in it, are wrong."""
        pairs = _PAIR.findall(text.upper())
        digits = dict(pairs)
        if sorted(letter for letter, _ in pairs) != self.letters:
            return Check("answer", 0.0, "not each letter once")
        if not self._holds(digits):
            return Check("answer", 0.0, "the sum does not hold")
        return Check("answer", 1.0)

    def has_one_solution(self) -> bool:
        """By trying all digits of all letters but the last, whose own the sum then gives."""
        worth = dict.fromkeys(
            self.letters, 0
        )  # how often a letter counts in first + second - whole
        for word, sign in ((self.first, 1), (self.second, 1), (self.whole, -1)):
            for power, letter in enumerate(reversed(word)):
                worth[letter] += sign * 10**power
        *tried, last = sorted(worth, key=lambda letter: worth[letter] != 0)  # it counts something
        found = 0
        for digits in permutations(range(10), len(tried)):
            rest = -sum(worth[letter] * digit for letter, digit in zip(tried, digits, strict=True))
            digit, left = divmod(rest, worth[last])
            if left == 0 and 0 <= digit <= 9:
                known = dict(zip(tried, map(str, digits), strict=True))
                found += self._holds({**known, last: str(digit)})
            if found > 1:
                return False
        return found == 1

    def _holds(self, digits: dict[str, str]) -> bool:
        words = (self.first, self.second, self.whole)
        if len(set(digits.values())) < len(digits) or any(digits[word[0]] == "0" for word in words):
            return False
        a, b, c = (int("".join(digits[letter] for letter in word)) for word in words)
        return a + b == c
