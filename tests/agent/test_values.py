"""Kinds of values: what is said is read back, and schemas are what jsonschema takes them for."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta

import jsonschema
import pytest

from selenite.agent.randomness import stream
from selenite.agent.values.compounds import Group, Several
from selenite.agent.values.dates import Day, Moment
from selenite.agent.values.kind import Kind, Value
from selenite.agent.values.numbers import Count, Measure, Money, Span
from selenite.agent.values.texts import Choice, Flag, Identifier, Reference, Text
from selenite.agent.values.words import SORTS
from selenite.errors import DataError

KINDS: list[Kind] = [
    Count(0, 5000, "seats"),
    Count(1, 20),
    Measure(0, 90, 2, "kg"),
    Measure(-5, 5),
    Money(0, 9000, "EUR"),
    Money(0, 90, "CHF"),
    Span(),
    Day(-400, 60),
    Moment(0, 30),
    Choice(("in_stock", "sold_out")),
    Flag(),
    Identifier("ORD"),
    Reference("CST", entity="customer"),
    *(Text(sort) for sort in SORTS),
    *(Several(of) for of in (Choice(("a_b", "c")), Text("person"), Text("note"), Day(), Moment())),
    Group((("street", Text("street")), ("city", Text("city")), ("when", Moment()))),
]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind)[:60])


@kinds
def test_what_is_said_is_read_back(kind: Kind) -> None:
    rng = stream(0, str(kind))
    for number in range(300):
        today = date(2026, 1, 1) + timedelta(days=number)
        value = kind.draw(rng, today)
        forms = kind.forms(value, today)
        assert len(set(forms)) == len(forms)
        for form in forms:
            assert kind.read(form, today) == value, form
        assert kind.say(value, rng, today) in forms


@kinds
def test_there_are_several_ways_to_say_a_value(kind: Kind) -> None:
    today = date(2026, 5, 6)
    rng = stream(1, str(kind))
    assert max(len(kind.forms(kind.draw(rng, today), today)) for _ in range(50)) >= 2


@kinds
def test_the_schema_accepts_what_the_kind_accepts(kind: Kind) -> None:
    validator = jsonschema.Draft202012Validator(
        kind.schema(), format_checker=jsonschema.FormatChecker(["date"])
    )
    validator.check_schema(kind.schema())
    rng, today = stream(2, str(kind)), date(2026, 2, 28)
    others = [None, True, 1, -3, 2.5, "", "x", "2026-02-30", [], ["x"], {}, {"street": 1}]
    others += [other.draw(rng, today) for other in KINDS]
    for value in others + [kind.draw(rng, today) for _ in range(50)]:
        by_schema = validator.is_valid(value)
        if isinstance(kind, (Moment, Day, Several, Group)) and by_schema:
            continue  # of moments within, jsonschema checks no format
        assert kind.accepts(value) == by_schema, value
    assert all(kind.accepts(kind.draw(rng, today)) for _ in range(50))


@kinds
def test_what_is_drawn_or_read_is_canonical(kind: Kind) -> None:
    rng, today = stream(3, str(kind)), date(2026, 3, 4)
    for _ in range(50):
        value = kind.draw(rng, today)
        assert json.dumps(kind.canonical(value)) == json.dumps(value)
        for form in kind.forms(value, today):
            assert json.dumps(kind.read(form, today)) == json.dumps(value), form


@pytest.mark.parametrize(
    ("kind", "value", "canonical"),
    [
        (Count(0, 9), 3.0, 3),
        (Span(), 30.0, 30),
        (Money(0, 9), 5, 5.0),
        (Measure(0, 9), 2, 2.0),
        (Day(), "20260105", "2026-01-05"),
        (Day(), "2026-W02-1", "2026-01-05"),
        (Moment(), "20260105T1000", "2026-01-05T10:00:00"),
        (Moment(), "2026-01-05T10:00:00Z", "2026-01-05T10:00:00"),
        (Moment(), "2026-01-05 10:00+02:00", "2026-01-05T10:00:00"),
        (Several(Day()), ["20260105", "2026-01-06"], ["2026-01-05", "2026-01-06"]),
        (Group((("n", Count(0, 9)), ("m", Money(0, 9)))), {"m": 1, "n": 2.0}, {"n": 2, "m": 1.0}),
    ],
    ids=str,
)
def test_other_forms_of_a_value_have_one_that_is_kept(
    kind: Kind, value: Value, canonical: Value
) -> None:
    assert kind.accepts(value)
    assert json.dumps(kind.canonical(value)) == json.dumps(canonical)


@pytest.mark.parametrize(
    "value",
    [math.inf, -math.inf, math.nan, 2**53 + 1, 10**400, 1e300, "\ud800", "a\udfff", ["\ud800"]],
)
@kinds
def test_what_not_every_reader_of_json_reads_alike_is_no_value(kind: Kind, value: Value) -> None:
    assert not kind.accepts(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Count(0, 9), "many"),
        (Measure(0, 9), "1,5"),
        (Money(0, 9, "EUR"), "12.50"),
        (Money(0, 9, "EUR"), "$5"),
        (Span(), "soon"),
        (Day(), "the 31st of February"),
        (Day(), "2026-02-30"),
        (Day(), "this Someday"),
        (Moment(), "tomorrow"),
        (Moment(), "tomorrow at 25:00"),
        (Choice(("a", "b")), "c"),
        (Flag(), "perhaps"),
        (Identifier("ORD"), "ORD-1"),
        (Identifier("ORD"), "CST-0001"),
        (Group((("city", Text("city")),)), "Oslo"),
    ],
)
def test_what_is_no_value_is_not_read(kind: Kind, text: str) -> None:
    with pytest.raises(DataError, match="it must be one of the forms"):
        kind.read(text, date(2026, 1, 1))


def test_streams_depend_on_their_path_alone() -> None:
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    drawn = {stream(*path).random() for path in [(1, "a"), (2, "a"), (1, "b"), (1, "a", 0)]}
    assert len(drawn) == 4
    # The same on every machine and in every version of Python that is supported.
    assert stream(7, "finance", 12).randrange(10**6) == 915_065
