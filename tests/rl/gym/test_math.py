"""Problems against solutions that are found from their texts, by other means."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

import pytest

from selenite.agent.randomness import stream
from selenite.rl.gym.audit import SPEAKERS, audit
from selenite.rl.gym.math_problems import KINDS, Problem, math_questions
from selenite.types import Message

F = Fraction


def numbers(text: str) -> list[Fraction]:
    return [F(found) for found in re.findall(r"\d+(?:\.\d+)?", text)]


def by_search(text: str, candidates: range) -> str:
    """Of ``ax + b = c``."""
    match = re.search(r": (.*?) = (-?\d+)\. ", text)
    assert match is not None
    left = match[1].replace("x", "*x")
    f = eval(f"lambda x: {left}")
    return next(str(x) for x in candidates if f(x) == int(match[2]))


def solve_total(text: str) -> str:
    first, *rest = numbers(text)
    return str(first - sum(rest) if text.startswith("Of") else first + sum(rest))


def solve_clock(text: str) -> str:
    (a, b), (c, d) = (map(int, found) for found in re.findall(r"(\d\d):(\d\d)", text))
    return f"{(c - a) * 60 + d - b} minutes"


def solve_common(text: str) -> str:
    a, b = map(int, numbers(text))
    if "divisor" in text:
        return str(max(d for d in range(1, a + 1) if a % d == b % d == 0))
    return str(next(m for m in itertools.count(a, a) if m % b == 0))


def solve_percent(text: str) -> str:
    before, share = numbers(text)
    return str(before + (1 if "raised" in text else -1) * before * share / 100)


def solve_progression(text: str) -> str:
    *shown, n = map(int, numbers(text))
    terms = [shown[0] + i * (shown[3] - shown[2]) for i in range(n)]
    assert terms[:4] == shown
    return str(sum(terms) if "sum" in text else terms[-1])


def solve_expand(text: str) -> str:
    """The coefficients by the values at three places."""
    product = text.split(": ")[1].replace(")(", ")*(")
    f = {x: eval(re.sub(r"(\d)x", r"\1*x", product), {"x": x}) for x in (-1, 0, 1)}
    square, linear = (f[1] + f[-1] - 2 * f[0]) // 2, (f[1] - f[-1]) // 2
    terms = [f"{square}x^2", f"{linear}x", f"{f[0]}"]
    return " + ".join(term for term in terms if not term.startswith("0"))


def solve_roots(text: str) -> str:
    left = re.search(r"of (.*) = 0", text)
    assert left is not None
    ready = re.sub(r"(\d)x", r"\1*x", left[1]).replace("^", "**")
    return ", ".join(str(x) for x in range(-200, 201) if eval(ready, {"x": x}) == 0)


def solve_inequality(text: str) -> str:
    left, sign, right = re.findall(r"Solve (.*?) (<=|>=|<|>) (-?\d+)", text)[0]
    ready = f"{left.replace('x', '*x')} {sign} {right}"
    f = eval(f"lambda x: {left.replace('x', '*x')}")
    bound = next(F(x) for x in range(-2000, 2001) if f(x) == int(right))
    is_below, is_closed = (eval(ready, {"x": bound + d}) for d in (-1, 0))
    return f"x {'<' if is_below else '>'}{'=' if is_closed else ''} {bound}"


SOLVERS: dict[str, Callable[[str], str]] = {
    "total": solve_total,
    "price": lambda t: str((n := numbers(t))[2] - n[0] * n[1]),
    "expression": lambda t: str(eval(t.removeprefix("Calculate ").rstrip("."))),
    "remainder": lambda t: str(int((n := numbers(t))[0]) % int(n[1])),
    "missing": lambda t: by_search(t, range(-2000, 2001)),
    "average": lambda t: str(sum(numbers(t)) / len(numbers(t))),
    "common": solve_common,
    "clock": solve_clock,
    "fractions": lambda t: str(
        eval(re.sub(r"(\d+)", r"F(\1)", t.split(". ")[0].removeprefix("Calculate ")), {"F": F})
    ),
    "percent": solve_percent,
    "progression": solve_progression,
    "rectangle": lambda t: str((n := numbers(t))[1] * (n[0] / 2 - n[1])),
    "speed": lambda t: f"{(n := numbers(t))[0] * n[1] / 60} km",
    "share": lambda t: str((n := numbers(t))[0] * max(n[1:]) / sum(n[1:])),
    "choose": lambda t: str(
        len(list(itertools.combinations(range(int(numbers(t)[1])), int(numbers(t)[0]))))
    ),
    "binary": lambda t: str(int(t.split()[4], 2)),
    "two_unknowns": lambda t: next(
        str(x)
        for x in range(1, 1001)
        for a, c, b, d in [re.findall(r"(\d+)x \+ y = (\d+) and x \+ (\d+)y = (\d+)", t)[0]]
        if x + int(b) * (int(c) - int(a) * x) == int(d)
    ),
    "expand": solve_expand,
    "roots": solve_roots,
    "inequality": solve_inequality,
}


def problem(kind: Callable[..., Problem], number: int, level: int) -> Problem:
    return kind(stream(1, kind.__name__, number), level)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_answer_is_what_another_way_finds(kind: Callable[..., Problem]) -> None:
    for level in (1, 2, 3):
        for number in range(40):
            found = problem(kind, number, level)
            check = found.judge(SOLVERS[kind.__name__](found.text))
            assert check.value == 1, (found.text, check)


def test_the_same_number_is_the_same_task_and_others_differ() -> None:
    texts = [math_questions(2).begin(n).opening[0].content for n in range(300)]
    assert texts == [math_questions(2).begin(n).opening[0].content for n in range(300)]
    assert len(set(texts)) > 290
    assert texts != [math_questions(2, seed=1).begin(n).opening[0].content for n in range(300)]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_no_answer_stands_in_its_problem(level: int) -> None:
    environment = math_questions(level)
    for number in range(300):
        text = environment.begin(number).opening[0].content.splitlines()[0]
        for found in re.findall(r"\d+(?:\.\d+)?", text):
            attempt = environment.begin(number)
            attempt.reply(Message("assistant", f"Answer: {found}"))
            assert attempt.score().value == 0, text


@pytest.mark.parametrize("level", [1, 2, 3])
def test_who_does_not_try_earns_next_to_nothing(level: int) -> None:
    earned = audit(math_questions(level), range(200), SPEAKERS)
    assert earned.pop("constant") <= 0.1
    assert earned.pop("guessing") <= 0.03
    assert set(earned.values()) == {0.0}
