"""Who always tells the truth, and who always lies: with exactly one solution."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from selenite.rl.gym.environment import Check
from selenite.rl.gym.questions import Question

_NAMES = ("Alba", "Bruno", "Celia", "Dina", "Elio", "Flora", "Gero")
_TRIES = 2000

Statement = tuple[str, Callable[[Sequence[bool]], bool]]
"""A sentence, and whether it is true if so many are truthful."""


def knights(rng: random.Random, level: int) -> Question:
    """Three to five people, who speak of each other."""
    count = 2 + level
    names = rng.sample(_NAMES, count)
    for _ in range(_TRIES):
        said = [_statement(rng, names, speaker) for speaker in range(count)]
        solutions = [
            truthful
            for truthful in product((False, True), repeat=count)
            if all(is_true(truthful) == truthful[i] for i, (_, is_true) in enumerate(said))
        ]
        if len(solutions) == 1:
            break
    else:
        raise AssertionError("no statements were found")
    told = " ".join(f"{name} says: “{text}”" for name, (text, _) in zip(names, said, strict=True))
    return Question(
        f"Each of {', '.join(names[:-1])} and {names[-1]} either always tells the truth or always "
        f"lies. {told} Who tells the truth? Answer with the names, or with “nobody”.",
        Truthful(
            tuple(names),
            frozenset(name for name, it in zip(names, solutions[0], strict=True) if it),
        ),
    )


@dataclass(frozen=True)
class Truthful:
    """Judges a list of names."""

    names: tuple[str, ...]
    truthful: frozenset[str]

    def __call__(self, text: str) -> Check:
        """Names, commas and “and”, no other words: naming people as liars is no list."""
        words = re.findall(r"\w+", text)
        if [word.lower() for word in words] == ["nobody"]:
            found = frozenset[str]()
        else:
            named = [word for word in words if word.lower() != "and"]
            if not named or not set(named) <= set(self.names) or len(set(named)) < len(named):
                return Check("answer", 0.0, "not a list of names")
            found = frozenset(named)
        if found != self.truthful:
            return Check("answer", 0.0, f"{len(found ^ self.truthful)} are on the wrong side")
        return Check("answer", 1.0)


def _statement(rng: random.Random, names: Sequence[str], speaker: int) -> Statement:
    a, b = rng.sample([i for i in range(len(names)) if i != speaker], 2)
    number = rng.randint(1, len(names) - 1)
    people = "person" if number == 1 else "people"
    verb = "tells" if number == 1 else "tell"
    return rng.choice(
        (
            (f"{names[a]} tells the truth.", lambda is_: is_[a]),
            (f"{names[a]} lies.", lambda is_: not is_[a]),
            (
                f"{names[a]} and {names[b]} are of the same kind.",
                lambda is_: is_[a] == is_[b],
            ),
            (
                f"{names[a]} or {names[b]} lies, or both do.",
                lambda is_: not (is_[a] and is_[b]),
            ),
            (
                f"Exactly {number} {people} of us {verb} the truth.",
                lambda is_: sum(is_) == number,
            ),
        )
    )
