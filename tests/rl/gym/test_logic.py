"""Puzzles against solvers that search blindly."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest

from selenite.rl.gym.audit import SPEAKERS, audit
from selenite.rl.gym.environment import Check
from selenite.rl.gym.logic.countdown import Calculation
from selenite.rl.gym.logic.cryptarithm import Sum
from selenite.rl.gym.logic.knights import Truthful
from selenite.rl.gym.logic.morse import CODE, Code, Letters
from selenite.rl.gym.logic.puzzles import KINDS, logic_questions
from selenite.rl.gym.logic.sudoku import Grid
from selenite.types import Message

Solver = Callable[[str], list[str]]
"""All answers to a text."""


def calculations(values: list[tuple[Fraction, str]]) -> Iterator[tuple[Fraction, str]]:
    """Everything that can be made of some numbers, each used once."""
    if len(values) == 1:
        yield values[0]
        return
    for i, j in itertools.permutations(range(len(values)), 2):
        rest = [value for k, value in enumerate(values) if k not in (i, j)]
        (a, left), (b, right) = values[i], values[j]
        made = [(a - b, f"({left}-{right})")]
        if i < j:
            made += [(a + b, f"({left}+{right})"), (a * b, f"({left}*{right})")]
        if b:
            made.append((a / b, f"({left}/{right})"))
        for one in made:
            yield from calculations([*rest, one])


def solve_countdown(text: str) -> list[str]:
    listed, target = re.findall(r"numbers (.*?) exactly once.* to make (\d+)\.", text)[0]
    values = [(Fraction(n), n) for n in listed.split(", ")]
    return [next(how for value, how in calculations(values) if value == int(target))]


def solve_cryptarithm(text: str) -> list[str]:
    words = re.findall(r": (\w+) \+ (\w+) = (\w+)\.", text)[0]
    letters = sorted(set("".join(words)))
    found = []
    for digits in itertools.permutations("0123456789", len(letters)):
        table = str.maketrans(dict(zip(letters, digits, strict=True)))
        a, b, c = (word.translate(table) for word in words)
        if int(a) + int(b) == int(c) and "0" not in (a[0], b[0], c[0]):
            found.append(", ".join(f"{x}={y}" for x, y in zip(letters, digits, strict=True)))
    return found


def solve_knights(text: str) -> list[str]:
    said = re.findall(r"(\w+) says: “(.*?)”", text)
    names = [name for name, _ in said]
    found = []
    for truthful in itertools.chain.from_iterable(
        itertools.combinations(names, n) for n in range(len(names) + 1)
    ):

        def holds(sentence: str, truthful: tuple[str, ...] = truthful) -> bool:
            about = [name in truthful for name in re.findall(r"\b[A-Z]\w+\b", sentence)]
            match sentence.split()[1:]:
                case ["tells", "the", "truth."]:
                    return about[0]
                case ["lies."]:
                    return not about[0]
                case [number, "person" | "people", *_]:
                    return len(truthful) == int(number)
                case ["and", *_]:
                    return about[0] is about[1]
                case ["or", *_]:
                    return not all(about)
            raise AssertionError(sentence)

        if all(holds(sentence) == (name in truthful) for name, sentence in said):
            found.append(" and ".join(truthful) or "nobody")
    return found


def solve_morse(text: str) -> list[str]:
    if text.startswith("Write"):
        return [" ".join(CODE[letter] for letter in text.split()[1])]
    letters = {code: letter for letter, code in CODE.items()}
    return ["".join(letters[code] for code in text.split("? ")[1].split())]


def solve_sudoku(text: str) -> list[str]:
    """Rows are whole permutations; columns and boxes are looked at as soon as they are there."""
    rows = re.findall(r"^[\d.]+$", text, re.MULTILINE)
    size = len(rows)
    height, width = map(int, re.findall(r"box of (\d) rows and (\d) columns", text)[0])
    ways = [
        [
            way
            for way in map("".join, itertools.permutations("123456"[:size]))
            if all(a in (".", b) for a, b in zip(row, way, strict=True))
        ]
        for row in rows
    ]

    def fits(grid: list[str]) -> bool:
        lines = ["".join(column) for column in zip(*grid, strict=True)]
        for top in range(0, len(grid), height):
            lines += [
                "".join(row[left : left + width] for row in grid[top : top + height])
                for left in range(0, size, width)
            ]
        return all(len(set(line)) == len(line) for line in lines)

    grids: list[list[str]] = [[]]
    for row_ways in ways:
        grids = [[*grid, way] for grid in grids for way in row_ways if fits([*grid, way])]
    return [" ".join(grid) for grid in grids]


def solve_tables(text: str) -> list[str]:
    *shown, question = text.split("\n\n")
    orders, *others = ([line.split(" | ") for line in table.splitlines()[1:]] for table in shown)
    more = [dict(table) for table in others]
    selected = [
        (what, int(n))
        for who, what, n in orders
        if who in question or what in question or (more and more[0][who] in question)
    ]
    if "euros" in question:
        return [str(sum(n * int(more[1][what]) for what, n in selected))]
    return [str(sum(n for _, n in selected))]


SOLVERS: dict[str, Solver] = {
    "countdown": solve_countdown,
    "cryptarithm": solve_cryptarithm,
    "knights": solve_knights,
    "morse": solve_morse,
    "sudoku": solve_sudoku,
    "tables": solve_tables,
}


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_blind_search_finds_exactly_one_answer_and_it_is_right(kind: str, level: int) -> None:
    environment = logic_questions(level, kinds=(kind,))
    for number in range(1 if (kind, level) == ("cryptarithm", 3) else 8):
        episode = environment.begin(number)
        text = episode.opening[0].content.rsplit("\n", 1)[0]
        answers = SOLVERS[kind](text)
        assert len(answers) == 1, text
        episode.reply(Message("assistant", f"So it is.\nAnswer: {answers[0]}"))
        assert episode.score().value == 1, (text, answers, episode.score())


@pytest.mark.parametrize("level", [1, 2, 3])
def test_who_does_not_try_earns_next_to_nothing(level: int) -> None:
    for kind in KINDS:
        if (kind, level) != ("cryptarithm", 3):  # takes seconds to make; the rules are those of 2
            environment = logic_questions(level, kinds=(kind,))
            earned = audit(environment, range(6 if kind == "cryptarithm" else 60), SPEAKERS)
            assert earned.pop("constant") <= 0.2, kind
            assert max(earned.values()) <= 0.05, (kind, earned)


def test_kinds_are_mixed_and_numbers_are_tasks() -> None:
    environment = logic_questions(1)
    texts = [environment.begin(number).opening[0].content for number in range(120)]
    assert len(set(texts)) > 110
    assert texts == [logic_questions(1).begin(number).opening[0].content for number in range(120)]
    begins = Counter(text.split()[0] for text in texts)
    assert len(begins) >= 5


def judged(judge: Callable[[str], Check], *texts: str) -> list[float]:
    return [judge(text).value for text in texts]


def test_countdown_takes_each_number_once_and_nothing_else() -> None:
    judge = Calculation((8, 3, 3, 8), 24)
    assert judged(judge, "8 / (3 - 8 / 3)", "8/(3-(8/3)) = 24", "`8 / (3 - 8/3)`") == [1, 1, 1]
    wrong = ("24", "8*3", "8 * 3 + 3 - 3", "83 - 8 - 3", "8 * 3 * (8 - 3) ^ 0", "8+8+3+3", "")
    assert judged(judge, *wrong) == [0] * len(wrong)
    assert judged(judge, "8 / (3 - 8 / 3) = 25", "8 / (3 - 8 / 3) = 24 = 24") == [0, 0]
    assert judged(judge, "24 - 8 + 8 + 3 - 3", "8 / (3 - 3) + 8", "8 / 8 3 3") == [0, 0, 0]


def test_a_sudoku_keeps_what_was_given() -> None:
    judge = Grid("1...............", 4, 2)
    assert judged(judge, "1234 3412 2143 4321", "`1234 3412 2143 4321`") == [1, 1]
    wrong = (
        *("2143 4321 1234 3412", "1234 3412 2143", "1... .... .... ....", "1234 1234 1234 1234"),
        *("1234 2143 3412 4321", "1234341221434321", "1235 3412 2143 4321"),
    )
    assert judged(judge, *wrong) == [0] * len(wrong)


def test_a_cryptarithm_takes_each_letter_once_with_a_digit_of_its_own() -> None:
    judge = Sum("AB", "BA", "CBC")  # 29 + 92 = 121
    assert judged(judge, "A=9, B=2, C=1", "c = 1; b is 2; a: 9") == [1, 1]
    wrong = ("A=9, B=2", "A=9, B=2, C=1, D=4", "A=9, B=2, C=1, A=9", "A=0, B=0, C=0", "A=1, B=1")
    assert judged(judge, *wrong) == [0] * len(wrong)


def test_knights_are_named_and_nothing_is_said_of_others() -> None:
    judge = Truthful(("Alba", "Bruno", "Celia"), frozenset({"Alba", "Celia"}))
    assert judged(judge, "Alba and Celia", "Celia, Alba", "Alba, and Celia.") == [1, 1, 1]
    wrong = (
        *("Alba", "Alba, Bruno, Celia", "nobody", "", "Bruno lies", "Alba, Celia, not Bruno"),
        "Alba, Alba, Celia",
    )
    assert judged(judge, *wrong) == [0] * len(wrong)
    assert judged(Truthful(("Alba",), frozenset()), "nobody", "Nobody.", "Alba", "") == [1, 1, 0, 0]


def test_morse_takes_any_dashes() -> None:
    assert judged(Code(".- -..."), ".- -...", "·– –···", "`.-  -...`") == [1, 1, 1]
    assert judged(Code(".- -..."), ".--...", ".-", "A B", "") == [0, 0, 0, 0]
    assert judged(Letters("ABC"), "abc", "A B C", "A, B, C.", "ABCD", "") == [1, 1, 1, 0, 0]
