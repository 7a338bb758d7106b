"""Mathematics with exact answers: problems by number, in three levels.

No answer is a number of its problem's text, so that copying earns nothing, and each kind's answers
spread, so that no constant earns much (``tests/rl/gym`` has the audit).
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from selenite.agent.randomness import stream
from selenite.rl.gym.answers import (
    IntervalAnswer,
    NumberAnswer,
    PolynomialAnswer,
    RootsAnswer,
)
from selenite.rl.gym.environment import Budget
from selenite.rl.gym.questions import Judge, Question, Questions

_NAMES = ("Ada", "Bela", "Carla", "Dario", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas")
_THINGS = ("apples", "stamps", "bricks", "tickets", "shells", "bottles", "coins", "cards")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TRIES = 200


@dataclass(frozen=True)
class Problem:
    """A text and its answer; ``number``: where that is one, for the rule on copying."""

    text: str
    judge: Judge
    number: Fraction | None = None


Kind = Callable[[random.Random, int], Problem]


def math_questions(level: int, seed: int = 0, tokens: int = 256) -> Questions:
    """The environment ``math``. ``level`` is 1 (small numbers, one step) to 3; ``tokens`` are those
    that an attempt may write."""

    def make(number: int) -> Question:
        rng = stream(seed, "math", level, number)
        kinds = KINDS[:_NUM_EASY] if level == 1 else KINDS
        kind = rng.choice(kinds)
        for _ in range(_TRIES):
            problem = kind(rng, level)
            given = {Fraction(found) for found in _NUMBER.findall(problem.text)}
            if problem.number is None or abs(problem.number) not in given:
                return Question(problem.text, problem.judge)
        raise AssertionError(f"{kind.__name__} gives away its answers")

    return Questions("math", Budget(tokens), make)


def _plain(text: str, value: Fraction | int, unit: str = "") -> Problem:
    return Problem(text, NumberAnswer(Fraction(value), unit), Fraction(value))


def _top(level: int) -> int:
    return (20, 100, 1000)[level - 1]


def total(rng: random.Random, level: int) -> Problem:
    """What three people have together, or what is left of it."""
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    a, b, c = (rng.randint(3, _top(level)) for _ in range(3))
    if rng.random() < 0.5:
        return _plain(
            f"{name} has {a} {thing}, buys {b} and finds {c} more. How many {thing} does {name} "
            "have now?",
            a + b + c,
        )
    start = a + b + c
    return _plain(
        f"Of {start} {thing}, {name} gives {a} to a friend and {b} to a neighbour. How many are "
        "left?",
        c,
    )


def price(rng: random.Random, level: int) -> Problem:
    """A bill, and the change."""
    thing, count, each = rng.choice(_THINGS), rng.randint(3, 12), rng.randint(2, _top(level) // 2)
    note = count * each + rng.randint(1, _top(level))
    return _plain(
        f"{count} {thing} cost {each} euros each. {rng.choice(_NAMES)} pays with {note} euros. How "
        "many euros come back?",
        note - count * each,
    )


def expression(rng: random.Random, level: int) -> Problem:
    """A calculation with parentheses."""
    a, b, d = (rng.randint(2, _top(level)) for _ in range(3))
    c = rng.randint(2, 9)
    if level == 1:
        return _plain(f"Calculate {a} + {b} * {c}.", a + b * c)
    return _plain(f"Calculate ({a} + {b}) * {c} - {d}.", (a + b) * c - d)


def remainder(rng: random.Random, level: int) -> Problem:
    """What a division leaves."""
    divisor, dividend = rng.randint(5, 12 * level), rng.randint(30, 10 * _top(level))
    return _plain(f"What is the remainder of {dividend} divided by {divisor}?", dividend % divisor)


def missing(rng: random.Random, level: int) -> Problem:
    """A linear equation."""
    a, x, b = rng.randint(2, 9), rng.randint(2, _top(level)), rng.randint(1, _top(level))
    sign = 1 if level == 1 else rng.choice((1, -1))
    return _plain(f"Solve for x: {a}x + {b} = {a * sign * x + b}. Give x as a number.", sign * x)


def average(rng: random.Random, level: int) -> Problem:
    """A mean, an integer."""
    count = rng.randint(3, 3 + level)
    mean = rng.randint(4, _top(level))
    values = list[int]()
    while not values or not 1 <= count * mean - sum(values) <= 3 * mean:
        values = [rng.randint(1, 2 * mean) for _ in range(count - 1)]
    shown = [*values, count * mean - sum(values)]
    rng.shuffle(shown)
    return _plain(f"What is the average of {', '.join(map(str, shown))}?", mean)


def common(rng: random.Random, level: int) -> Problem:
    """Greatest common divisor, least common multiple."""
    g, a, b = rng.randint(2, 6 * level), rng.randint(2, 9), rng.randint(2, 9)
    if rng.random() < 0.5:
        return _plain(
            f"What is the greatest common divisor of {g * a} and {g * b}?", math.gcd(g * a, g * b)
        )
    return _plain(
        f"What is the least common multiple of {g * a} and {g * b}?", math.lcm(g * a, g * b)
    )


def clock(rng: random.Random, level: int) -> Problem:
    """Minutes between two times of a day."""
    start = rng.randrange(0, 18 * 60, 5)
    minutes = rng.randrange(15, 60 * (1 + level), 5)
    first, last = (f"{m // 60:02d}:{m % 60:02d}" for m in (start, start + minutes))
    return _plain(
        f"A train leaves at {first} and arrives at {last} of the same day. How many minutes does "
        "it take?",
        minutes,
        "minutes",
    )


def fractions(rng: random.Random, level: int) -> Problem:
    """A sum or difference of fractions."""
    b, d = rng.randint(2, 6 * level), rng.randint(2, 6 * level)
    a, c = rng.randint(1, b), rng.randint(1, d)
    sign, word = rng.choice(((1, "+"), (-1, "-")))
    value = Fraction(a, b) + sign * Fraction(c, d)
    return _plain(f"Calculate {a}/{b} {word} {c}/{d}. Give a fraction or an integer.", value)


def percent(rng: random.Random, level: int) -> Problem:
    """A price after a change."""
    share = rng.choice((5, 10, 15, 20, 25, 30, 40, 60, 75))
    before = rng.randint(2, _top(level)) * 20
    up = rng.random() < 0.5
    value = Fraction(before * (100 + (share if up else -share)), 100)
    change = "raised" if up else "lowered"
    return _plain(
        f"A price of {before} euros is {change} by {share} percent. What is it then?", value
    )


def progression(rng: random.Random, level: int) -> Problem:
    """A term of an arithmetic sequence, or the sum of its first ones."""
    first, step, n = rng.randint(1, 30), rng.randint(2, 12), rng.randint(8, 10 * level)
    shown = ", ".join(str(first + i * step) for i in range(4))
    if rng.random() < 0.5:
        return _plain(
            f"A sequence goes {shown}, and so on by the same step. What is its term number {n}?",
            first + (n - 1) * step,
        )
    return _plain(
        f"A sequence goes {shown}, and so on by the same step. What is the sum of its first {n} "
        "terms?",
        n * (2 * first + (n - 1) * step) // 2,
    )


def rectangle(rng: random.Random, level: int) -> Problem:
    """An area by a perimeter."""
    a, b = rng.randint(3, _top(level)), rng.randint(3, _top(level))
    return _plain(
        f"A rectangle has a perimeter of {2 * (a + b)} cm, and one side of {a} cm. What is its "
        "area in square centimetres?",
        a * b,
    )


def speed(rng: random.Random, level: int) -> Problem:
    """A distance in parts of an hour."""
    speed, minutes = 12 * rng.randint(2, 9), 5 * rng.randint(3, 8 * level)
    return _plain(
        f"A bus drives {speed} km an hour for {minutes} minutes. How many kilometres is that?",
        Fraction(speed * minutes, 60),
        "km",
    )


def share(rng: random.Random, level: int) -> Problem:
    """A sum in a ratio."""
    a, b = rng.sample(range(2, 10), 2)
    part = rng.randint(3, _top(level))
    return _plain(
        f"{(a + b) * part} euros are shared in the ratio {a} to {b}. What is the larger share, in "
        "euros?",
        max(a, b) * part,
    )


def choose(rng: random.Random, level: int) -> Problem:
    """Ways to choose some of a number."""
    n = rng.randint(5, 7 + 2 * level)
    k = rng.randint(2, min(4, n - 2))
    return _plain(
        f"In how many ways can {k} of {n} people be chosen, if the order does not matter?",
        math.comb(n, k),
    )


def binary(rng: random.Random, level: int) -> Problem:
    """A binary number."""
    value = rng.randint(9, 16 * _top(level))
    return _plain(f"Write the binary number {value:b} as a decimal one.", value)


def two_unknowns(rng: random.Random, level: int) -> Problem:
    """One of two unknowns by their sum and difference, in multiples."""
    x, y = rng.randint(2, _top(level)), rng.randint(2, _top(level))
    a, b = rng.randint(2, 5), rng.randint(2, 5)
    return _plain(
        f"{a}x + y = {a * x + y} and x + {b}y = {x + b * y}. Give x as a number.",
        x,
    )


def expand(rng: random.Random, level: int) -> Problem:
    """A product to be multiplied out."""
    a, c = rng.randint(1, 1 + level), rng.randint(1, 1 + level)
    b, d = rng.choice((-1, 1)) * rng.randint(1, 9), rng.choice((-1, 1)) * rng.randint(1, 9)
    table = {2: a * c, 1: a * d + b * c, 0: b * d}
    found = {power: Fraction(value) for power, value in table.items() if value}
    left, right = _linear(a, b), _linear(c, d)
    return Problem(f"Multiply out and simplify: ({left})({right})", PolynomialAnswer(found))


def roots(rng: random.Random, level: int) -> Problem:
    """A quadratic equation with integer solutions."""
    r, s = rng.sample([n for n in range(-4 * level, 4 * level + 1) if n], 2)
    b, c = -(r + s), r * s
    middle = f" {'+' if b > 0 else '-'} {'' if abs(b) == 1 else abs(b)}x" if b else ""
    text = f"x^2{middle} {'+' if c > 0 else '-'} {abs(c)} = 0"
    answer = RootsAnswer(frozenset((Fraction(r), Fraction(s))))
    return Problem(f"Give all solutions of {text}, with a comma between them.", answer)


def inequality(rng: random.Random, level: int) -> Problem:
    """A linear inequality."""
    a = rng.choice((-1, 1)) * rng.randint(2, 9)
    x, b = rng.randint(-_top(level), _top(level)), rng.randint(1, 50)
    sign, is_below, is_closed = rng.choice(
        (("<", True, False), ("<=", True, True), (">", False, False), (">=", False, True))
    )
    answer = IntervalAnswer(Fraction(x), is_below == (a > 0), is_closed)
    return Problem(
        f"Solve {a}x + {b} {sign} {a * x + b}. Give an inequality with x alone on one side.", answer
    )


def _linear(a: int, b: int) -> str:
    first = "x" if a == 1 else f"{a}x"
    return f"{first} {'+' if b > 0 else '-'} {abs(b)}"


KINDS: Sequence[Kind] = (
    *(total, price, expression, remainder, missing, average, common, clock),
    *(fractions, percent, progression, rectangle, speed, share, choose, binary),
    *(two_unknowns, expand, roots, inequality),
)
"""The first ones are those of level 1."""
_NUM_EASY = 8
