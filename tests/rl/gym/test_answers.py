"""Answers: what is read, what is refused, and that no text takes time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selenite.rl.gym.answers import (
    AnswerError,
    IntervalAnswer,
    NumberAnswer,
    PolynomialAnswer,
    RootsAnswer,
    number,
    polynomial,
)
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.rl.gym.questions import Question, Questions, slot
from selenite.types import Message

F = Fraction


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", F(12)),
        ("-3", F(-3)),
        ("−3", F(-3)),
        ("+7", F(7)),
        ("1,200", F(1200)),
        ("1,234,567.5", F(2469135, 2)),
        (".5", F(1, 2)),
        ("0.10", F(1, 10)),
        ("3/4", F(3, 4)),
        ("-6/8", F(-3, 4)),
        ("2.5e3", F(2500)),
        ("1e-2", F(1, 100)),
        ("007", F(7)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-", ".", "/", "1/0", "1//2", "12 13", "1,2", "1,2345", "0x10", "1_000", "e5"),
        *("it depends", "12 or 13", "__import__('os')", "1e99", "9" * 41, "1+1", "nan", "inf"),
        *("٣", "1/2/3", "½", "1 000"),
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        number(text)


@given(st.fractions(max_denominator=10**6))
def test_every_fraction_is_read_as_it_is_written(value: Fraction) -> None:
    assert number(str(value)) == value
    assert NumberAnswer(value)(f"**{value}**.").value == 1
    assert NumberAnswer(value)(str(value + F(1, 10**7))).value == 0


@given(st.text(max_size=200))
def test_any_text_is_judged(text: str) -> None:
    for judge in (
        NumberAnswer(F(7), "km"),
        PolynomialAnswer({1: F(2), 0: F(3)}),
        RootsAnswer(frozenset((F(1), F(2)))),
        IntervalAnswer(F(3), True, False),
    ):
        assert judge(text).value in (0.0, 1.0)


def test_a_unit_may_stand_there_and_no_other() -> None:
    judge = NumberAnswer(F(12), "km")
    assert [judge(text).value for text in ("12", "12 km", "12km", "12 KM.", "$12$")] == [1] * 5
    assert [judge(text).value for text in ("12 m", "12 km/h", "12 miles", "km", "12 12 km")] == [
        0
    ] * 5


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("2x^2 + 3x - 5", True),
        ("-5 + 3x + 2x**2", True),
        ("2*x*x + 3*x - 5", True),
        ("2x² + 3x − 5", True),
        ("(2x + 5)(x - 1)", False),  # right, not multiplied out
        ("2x^2 + 5x - 2x - 5", False),  # right, like terms apart
        ("2x^2 + 3x", False),
        ("2y^2 + 3y - 5", False),
        ("", False),
    ],
)
def test_polynomials_are_compared_by_value_and_must_be_simple(text: str, is_right: bool) -> None:
    assert PolynomialAnswer({2: F(2), 1: F(3), 0: F(-5)})(text).value == is_right


@given(st.dictionaries(st.integers(0, 5), st.fractions(max_denominator=20), max_size=5))
def test_polynomials_are_read_as_they_are_written(table: dict[int, Fraction]) -> None:
    text = " + ".join(f"({value})*x^{power}" for power, value in table.items()) or "0"
    assert polynomial(text, "x") == {power: value for power, value in table.items() if value}


@pytest.mark.parametrize(
    "text",
    [
        *("(" * 500 + "x" + ")" * 500, "9" * 4000, "9^9^9^9", "x^999999999", "(x+1)^12*(x+1)"),
        *("((9^12)^12)^12", "1/" * 100 + "1", "x/(x-1)", "x/0", "2 +", "*2", "x)", "(x", "x y"),
        *("__class__", "x;x", "x" * 100),
    ],
)
def test_expressions_beyond_bounds_are_refused(text: str) -> None:
    with pytest.raises(AnswerError):
        polynomial(text, "x")


def test_roots_in_any_order_each_once() -> None:
    judge = RootsAnswer(frozenset((F(2), F(-3))))
    for text in ("2, -3", "-3, 2", "x = 2 or x = -3", "{2, -3}", "x=-3 and x=2", "4/2; -3"):
        assert judge(text).value == 1, text
    for text in ("2", "2, 2, -3", "2, -3, 5", "2 -3", "y = 2, -3", ""):
        assert judge(text).value == 0, text


def test_intervals_in_each_notation() -> None:
    judge = IntervalAnswer(F(2), is_below=True, is_closed=False)
    for text in ("x < 2", "2 > x", "(-inf, 2)", "(-∞, 2)", "x<4/2."):
        assert judge(text).value == 1, text
    for text in ("x <= 2", "x > 2", "(-inf, 2]", "[-inf, 2)", "(0, 2)", "x = 2", "2", "x < 2 < 3"):
        assert judge(text).value == 0, text
    closed = IntervalAnswer(F(-1, 2), is_below=False, is_closed=True)
    for text in ("x >= -0.5", "-1/2 ≤ x", "[-0.5, ∞)", "[-1/2, inf)"):
        assert closed(text).value == 1, text


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Answer: 42", "42"),
        ("I add them.\n\n**Answer:** 42\n", "42"),
        ("answer : 42  ", "42"),
        ("> Answer: 42", "42"),
        ("Answer:", ""),
        ("42", "no line"),
        ("Answer: 41\nAnswer: 42", "2 answers"),
        ("Answer: 41\nNo, it is 42.", "something follows"),
        ("The answer: 42", "no line"),
        ("Answer: " + "4" * 500, "over 400"),
    ],
)
def test_one_answer_stands_on_the_last_line(reply: str, found: str) -> None:
    got = slot(reply)
    assert found in got.reason if isinstance(got, Check) else got == found


def test_a_score_is_a_product() -> None:
    assert Score((Check("a", 1.0), Check("b", 0.5))).value == 0.5
    assert Score((Check("a", 0.0), Check("b", 1.0))).value == 0
    with pytest.raises(AssertionError):
        _ = Score((Check("a", 1.5),)).value


def test_an_attempt_is_scored_by_its_reply_alone() -> None:
    questions = Questions("q", Budget(8), lambda n: Question(f"{n}?", NumberAnswer(F(n))))
    episode = questions.begin(5)
    assert "5?" in episode.opening[0].content
    assert episode.score().value == 0  # nothing was said
    assert not episode.reply(Message("assistant", "Five.\nAnswer: 5"))
    assert episode.score().value == 1
    assert questions.begin(5).score().value == 0
