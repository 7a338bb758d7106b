"""Level 1: one expression over one or two arguments."""

from __future__ import annotations

import random

from selenite.rl.gym.code.problem import Problem, condition, letters, numbers, problem


def affine(rng: random.Random) -> Problem:
    """A product and a sum."""
    a, b = rng.randint(2, 9), rng.randint(1, 20)
    word, sign = rng.choice([("plus", "+"), ("minus", "-")])
    return problem(
        f"Return {a} times the whole number `x`, {word} {b}.",
        f"def affine(x):\n    return {a} * x {sign} {b}",
        lambda r: (r.randint(-60, 60),),
    )


def select(rng: random.Random) -> Problem:
    """Some of a list."""
    text, test = condition(rng)
    return problem(
        f"Return a list of those of `numbers` that are {text}, in their order.",
        f"def select(numbers):\n    return [n for n in numbers if {test}]",
        lambda r: (numbers(r),),
    )


def count(rng: random.Random) -> Problem:
    """How many of a list."""
    text, test = condition(rng)
    return problem(
        f"Return how many of `numbers` are {text}.",
        f"def count(numbers):\n    return len([n for n in numbers if {test}])",
        lambda r: (numbers(r),),
    )


def stretch(rng: random.Random) -> Problem:
    """Characters that are repeated."""
    kept, times = "".join(sorted(rng.sample("abcdef", 2))), rng.randint(2, 5)
    return problem(
        f"Return `text` with each character {times} times in a row, but each {kept[0]!r} and "
        f"{kept[1]!r} once.",
        f"""
        def stretch(text):
            return "".join(c if c in "{kept}" else c * {times} for c in text)
        """,
        lambda r: (letters(r, "abcdef", 8),),
    )


def ends(rng: random.Random) -> Problem:
    """The two ends of a text."""
    first, last = rng.randint(1, 4), rng.randint(1, 4)
    return problem(
        f"Return the first {first} characters of `text`, followed by its last {last}. `text` has "
        f"at least {max(first, last)} characters.",
        f"def ends(text):\n    return text[:{first}] + text[-{last}:]",
        lambda r: ("abcd"[: max(first, last)] + letters(r, "abcdefgh", 6),),
    )


def every(rng: random.Random) -> Problem:
    """Each k-th of a list."""
    start, step = rng.randint(1, 3), rng.randint(2, 4)
    return problem(
        f"Return a list of the elements of `items` at the indices {start}, {start + step}, "
        f"{start + 2 * step} and so on (the first index is 0).",
        f"def every(items):\n    return items[{start}::{step}]",
        lambda r: (numbers(r),),
    )


def clamp(rng: random.Random) -> Problem:
    """A number that is kept between two."""
    low = rng.randint(-9, 9)
    high = low + rng.randint(2, 12)
    return problem(
        f"Return `x`, but {low} where `x` is smaller than that, and {high} where it is greater "
        "than that.",
        f"def clamp(x):\n    return max({low}, min(x, {high}))",
        lambda r: (r.randint(-25, 35),),
    )


def places(rng: random.Random) -> Problem:
    """Two lists, compared."""
    word, sign = rng.choice([("greater", ">"), ("less", "<")])
    k = rng.randint(1, 4)
    more, operator = rng.choice([("plus", "+"), ("minus", "-")])
    return problem(
        f"`a` and `b` are lists of numbers that are equally long. Return how many numbers of `a` "
        f"are {word} than the number at the same place of `b` {more} {k}.",
        f"""
        def places(a, b):
            return sum(1 for x, y in zip(a, b) if x {sign} y {operator} {k})
        """,
        lambda r: _equally_long(r),
    )


def _equally_long(rng: random.Random) -> tuple[list[int], list[int]]:
    pairs = [(rng.randint(-4, 6), rng.randint(-4, 6)) for _ in range(rng.randint(0, 8))]
    return [a for a, _ in pairs], [b for _, b in pairs]


KINDS = (affine, select, count, stretch, ends, every, clamp, places)
