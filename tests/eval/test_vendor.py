"""The vendor checks: by hand-made answers, and of our own engine against the plain decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from selenite.eval.ask import AskOptions
from selenite.eval.functions import functions
from selenite.eval.measure import Target, asked
from selenite.eval.question import Answer, Call, Question
from selenite.eval.vendor import check, reference_answers, table
from selenite.types import Message, ToolSpec
from tests.fixtures.server import make_model

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
QUESTIONS = [
    Question(f"q{n}", "all", (Message("user", "Go."),), (ToolSpec("f", "", SCHEMA),))
    for n in range(6)
]
RIGHT = (Call("f", {"n": 1}),)


def answered(*calls: Call, id: str = "functions.f:0", malformed: int = 0) -> Answer:
    entries = [{"id": id, "function": {"name": call.name}} for call in calls]
    record = {"choices": [{"message": {"tool_calls": entries}}]}
    return Answer("", calls, malformed, record=record)


def test_each_check_counts_what_it_says() -> None:
    guided = {
        "q0": answered(*RIGHT),
        "q1": answered(Call("f", {"n": "one"})),
        "q2": answered(*RIGHT, id="call_1"),
        "q3": Answer("no"),
        "q4": Answer("no"),
        "q5": Answer(error="timeout"),
    }
    free = {
        **guided,
        "q1": answered(Call("f", {"n": 5})),
        "q2": answered(Call("f", None)),
        "q3": Answer("", malformed=1),
    }
    reference = {f"q{n}": Answer(calls=RIGHT if n in (0, 1, 3) else ()) for n in range(6)}
    report = check(QUESTIONS, guided, free, reference)
    assert (report.answers, report.errors) == (5, 1)
    assert report.schema_accuracy == pytest.approx(2 / 3)
    assert report.wrong_ids == 1
    assert (report.trigger.both, report.trigger.server, report.trigger.reference) == (3, 1, 0)
    assert report.trigger.f1 == pytest.approx(6 / 7)
    assert (report.free_valid, report.changed) == (2, 1)
    assert table(report).row_count == 6


def test_our_engine_serves_the_weights_as_they_are(tmp_path: Path) -> None:
    """Who begins a call in the engine does in the plain decoder, on the same weights."""
    model, suite = make_model(tmp_path), functions(40)
    options = AskOptions("", "x", max_tokens=12, concurrency=4)
    target = Target(model, None)
    (_, guided), (_, free) = asked(suite, target, tmp_path / "out", (True, False), options)
    reference = reference_answers(model, suite.questions, 12)
    report = check(suite.questions, guided, free, reference)
    assert report.errors == 0
    assert report.trigger.both > 0
    assert report.trigger.f1 > 0.5  # random weights in bfloat16 and float32 part ways early
    assert report.schema_accuracy == 1.0
    same = [q.id for q in suite.questions if not free[q.id].calls and not reference[q.id].calls]
    agree = sum(free[name].text == reference[name].text for name in same)
    assert agree >= 0.5 * len(same)  # bfloat16 against float32, with random weights
