"""Arguments as models write them: a world takes or refuses them, and never breaks."""

from __future__ import annotations

import json
import random

import pytest

from selenite.agent.ontology.evolve import make_domain
from selenite.agent.roles.arguments import NOT_AN_OBJECT, fit, read_arguments
from selenite.agent.tools.tool import Effect, Param, Tool
from selenite.agent.values.compounds import Group, Several
from selenite.agent.values.dates import Day, Moment
from selenite.agent.values.numbers import Count, Money
from selenite.agent.values.texts import Text
from selenite.agent.world.reply import Code
from selenite.agent.world.sample import sample_world

PLACE = Group((("floor", Count(0, 9)), ("since", Day())))
KINDS = {
    "count": Count(0, 9),
    "price": Money(0, 9),
    "day": Day(),
    "moment": Moment(),
    "days": Several(Day()),
    "place": PLACE,
    "text": Text("note"),
}
TOOL = Tool(
    "make",
    "d",
    "create",
    Effect.CREATE,
    "thing",
    "Makes a thing.",
    tuple(Param(name, kind, name, required=name == "text") for name, kind in KINDS.items()),
    {},
    "create",
)


def test_values_are_in_their_kinds_own_form() -> None:
    written = {
        "count": 3.0,
        "price": 3.0,
        "day": "20260105",
        "moment": "2026-01-05T10:00",
        "days": ["2026-W02-1", "2026-01-06"],
        "place": {"floor": 2.0, "since": "20260105"},
        "text": "20260105",
        "other": 1.0,
    }
    found = read_arguments(json.dumps(written), TOOL)
    assert found == {
        "count": 3,
        "price": 3.0,
        "day": "2026-01-05",
        "moment": "2026-01-05T10:00:00",
        "days": ["2026-01-05", "2026-01-06"],
        "place": {"floor": 2, "since": "2026-01-05"},
        "text": "20260105",
        "other": 1.0,
    }
    assert isinstance(found["count"], int)
    assert not fit(TOOL, found)
    del found["other"]
    assert fit(TOOL, found)
    del found["text"]
    assert not fit(TOOL, found)


def test_what_does_not_fit_is_left_as_it_is() -> None:
    written = {"count": 3.5, "day": "tomorrow", "days": [], "place": {"floor": 2.0}, "text": None}
    assert read_arguments(json.dumps(written), TOOL) == written
    assert not fit(TOOL, written)
    assert read_arguments('{"a": 1.0}', None) == {"a": 1.0}
    assert not fit(None, {})


@pytest.mark.parametrize(
    "text",
    [
        *("", "id=3", '{"a": 1', "[1]", '"x"', "null", "3", '{"a": NaN}', '{"a": -Infinity}'),
        *('{"a": 1e999}', f'{{"a": {10**16}}}', f'{{"a": {"9" * 5000}}}', '{"a": "\\ud800"}'),
        *('{"\\udfff": 1}', "[" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000, "\ud800"),
    ],
)
def test_what_is_no_object_becomes_one_that_is_refused(text: str) -> None:
    found = read_arguments(text, TOOL)
    assert list(found) == [NOT_AN_OBJECT]
    assert json.dumps(found, ensure_ascii=False).encode()
    world = sample_world(make_domain(3, 1), 0)
    for tool in world.domain.tools:
        reply = world.call(tool.name, found)
        assert reply.code is Code.INVALID_ARGUMENT
        assert NOT_AN_OBJECT in reply.content["error"]["message"]


def test_no_arguments_break_a_world() -> None:
    values = [
        *(0, -1, 3, 2.0, 1e15, -(10**15), 5e-324, True, None, "", "x", "\0", [], {}, [1], [[1]]),
        *("20260105", "20260105T10:00", "2026-W02-1", "0001-01-01T00:00:00+14:00", "9999-12-31"),
    ]
    done = 0
    for number in range(30):
        world = sample_world(make_domain(3, number), number)
        rng = random.Random(number)
        ids = [id for entity in world.domain.entities for id in world.records.of(entity.name)]
        for _ in range(150):
            tool = rng.choice(world.domain.tools)
            written = {
                param.name: rng.choice(
                    [*[param.kind.draw(rng, world.today)] * 2, rng.choice(values), rng.choice(ids)]
                )
                for param in tool.params
                if param.required or rng.random() < 0.6
            }
            arguments = read_arguments(json.dumps(written), tool)
            reply = world.call(tool.name, arguments)
            assert fit(tool, arguments) or reply.code is Code.INVALID_ARGUMENT
            assert json.dumps(reply.content, allow_nan=False)
            done += reply.is_ok
    assert done > 200
