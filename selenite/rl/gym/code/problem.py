"""What a function is to do: its text, a reference that does it, and arguments to try it with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

Arguments = tuple[Any, ...]  # values of JSON
Draw = Callable[[random.Random], Arguments]


@dataclass(frozen=True)
class Problem:
    """``draw`` gives arguments of one call, small ones and the bounds of the text among them."""

    text: str
    reference: str  # source of the function; stays the oracle's
    draw: Draw = field(compare=False)  # functions have no other equality than identity

    @property
    def signature(self) -> str:
        """The function's first line."""
        return self.reference.partition("\n")[0]

    @property
    def name(self) -> str:
        """Of the function."""
        return self.signature.removeprefix("def ").partition("(")[0]

    def answers(self, calls: Sequence[Arguments]) -> list[Any]:
        """What the reference returns. It is our own text, so that it runs here."""
        namespace: dict[str, Any] = {}
        exec(self.reference, namespace)
        return [namespace[self.name](*arguments) for arguments in calls]


def problem(text: str, reference: str, draw: Draw) -> Problem:
    """A problem whose reference may be indented."""
    return Problem(text, dedent(reference).strip() + "\n", draw)


def condition(rng: random.Random) -> tuple[str, str]:
    """Something that holds for some numbers ``n``, as text and as Python."""
    k, d = rng.randint(2, 9), rng.randint(2, 5)
    return rng.choice(
        [
            (f"greater than {k}", f"n > {k}"),
            (f"at least {k}", f"n >= {k}"),
            (f"less than {k}", f"n < {k}"),
            (f"at most {k}", f"n <= {k}"),
            (f"divisible by {d}", f"n % {d} == 0"),
            (f"not divisible by {d}", f"n % {d} != 0"),
            (f"from {k} to {k + d}, both included", f"{k} <= n <= {k + d}"),
        ]
    )


def numbers(rng: random.Random) -> list[int]:
    """None to nine of them."""
    return [rng.randint(-6, 16) for _ in range(rng.randint(0, 9))]


def letters(rng: random.Random, alphabet: str, most: int = 12) -> str:
    """None to ``most`` of them."""
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(0, most)))
