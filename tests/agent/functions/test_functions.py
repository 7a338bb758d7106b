"""Functions of every kind: every concept gives tools and calls that hold together."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.functions.concept import Concept, Parameter, concepts, pools, read_topic
from selenite.agent.functions.group import SHARES as GROUP_SHARES
from selenite.agent.functions.group import SIZE, make_group
from selenite.agent.functions.request import draw, make_request, once_more, spelt
from selenite.agent.functions.sample import SHARES, make_sample
from selenite.agent.functions.selection import split_of
from selenite.agent.functions.signature import STYLES, make_function
from selenite.agent.functions.turn import Sort
from selenite.chat.schema import ToolSchemas
from selenite.data.chat_rows import read_chat_rows
from selenite.data.chat_stream import draw_tools
from selenite.errors import DataError
from selenite.types import ToolCall

EVERY = [(topic, concept) for topic, known in concepts().items() for concept in known]
BASE = """
[[function]]
name = ["fence cost"]
verbs = ["estimate", "get"]
module = ["garden"]
does = ["Estimate a fence.", "Estimates the cost of a fence.", "What a fence costs."]
wish = "estimate a fence"
ask = ["{length} m?", "a {length} m fence", "fence, {length} m", "for {length} m", "{length} m[, painted|painted=true]", "it is {length} m[ in {wood}]"]
[[function.parameters]]
name = ["length"]
type = "number"
about = ["Length.", "The length."]
missing = "How long?"
low = 1
high = 99
[[function.parameters]]
name = ["painted"]
type = "boolean"
about = ["Paint.", "Whether it is painted."]
missing = "Painted?"
optional = true
choices = { true = ["painted"], false = ["plain"] }
[[function.parameters]]
name = ["wood"]
type = "string"
about = ["Wood.", "Kind of wood."]
missing = "Which wood?"
optional = true
choices = { oak = ["oak"], pine = ["pine"] }
"""  # noqa: E501


def test_there_are_hundreds_in_seven_topics() -> None:
    assert len(concepts()) == 7
    assert len(EVERY) > 400
    assert sum(len(concept.ask) for _, concept in EVERY) > 3000


@pytest.mark.parametrize("topic", concepts())
def test_every_request_is_said_whole_and_its_call_fits(topic: str) -> None:
    rng = random.Random(topic)
    for concept in concepts()[topic] * 12:
        function = make_function(concept, rng.choice(STYLES), rng)
        request = make_request(function, rng)
        assert request is not None
        assert not re.search(r"[{}\0|]|\s{2}", request.text), request.text
        (arguments,) = request.calls
        call = ToolCall(function.tool.name, json.dumps(arguments), "")
        check = ToolSchemas([function.tool]).check(call)
        assert check.valid, (check, request)
        _is_said(concept, function.names, arguments, request.text)


def _is_said(concept: Concept, names: Any, arguments: dict[str, Any], text: str) -> None:
    """What is copied from pools and words stands in the request, letter by letter."""
    for parameter in concept.parameters:
        name = names.get(parameter.name[0])
        if name not in arguments or not (parameter.pool or parameter.words):
            continue
        value = arguments[name]
        for item in value if isinstance(value, list) else [value]:
            assert item in text


def test_numbers_are_said_as_they_are() -> None:
    rng = random.Random(3)
    words = {"zero": 0, "one": 1, "two": 2, "three": 3, "seven": 7, "twelve": 12}
    for _, concept in EVERY:
        for parameter in concept.parameters:
            if parameter.low is None or parameter.type not in ("integer", "number"):
                continue
            for _ in range(10):
                value, word = draw(parameter, rng)
                assert parameter.low <= value <= (parameter.high or 0), (parameter, value)
                said = words.get(word)
                if word[0].isdigit() or word[0] == "-":
                    said = float(word.replace(",", ""))
                assert said is None or said == value
                assert parameter.type == "number" or isinstance(value, int)


def test_once_more_changes_one_thing() -> None:
    rng, count = random.Random(1), 0
    for _, concept in EVERY:
        function = make_function(concept, "snake", rng)
        first = make_request(function, rng)
        assert first is not None
        both = once_more(function, first, rng)
        if both is None:
            continue
        count += 1
        one, other = both.calls
        assert one.keys() == other.keys()
        assert sum(one[name] != other[name] for name in one) == 1
        assert both.text.startswith(first.text)
    assert count > 200


def test_samples_are_what_they_are_called() -> None:
    shares = Counter[Sort]()
    for number in range(900):
        sample = make_sample(5, number)
        shares[sample.sort] += 1
        calls = [call for message in sample.messages for call in message.tool_calls]
        offered = [function.tool for function in sample.functions]
        schemas = ToolSchemas(offered)
        assert all(schemas.check(call).valid for call in calls)
        match sample.sort:
            case Sort.SINGLE:
                assert len(offered) == 1 == len(calls)
            case Sort.CHOICE:
                assert len(offered) > 1 == len(calls)
            case Sort.PARALLEL:
                assert len({call.name for call in calls}) == 1 < len(calls)
                assert len({call.arguments for call in calls}) == len(calls)
            case Sort.SEVERAL:
                assert len({call.name for call in calls}) > 1
            case Sort.SESSION:
                roles = [m.role for m in sample.messages if m.role in ("user", "assistant")]
                assert roles == ["user", "assistant"] * (len(roles) // 2)
                assert len(roles) > 2
            case _:
                assert not calls
                assert sample.messages[-1].content
        assert len({call.id for call in calls}) == len(calls)
    for sort, share in SHARES.items():
        # Some draws find nothing to do, which moves the shares a little.
        assert shares[sort] / 900 == pytest.approx(share, abs=0.06)


def test_what_is_held_out_is_never_asked_for_in_training() -> None:
    held_out = {concept.wish for _, concept in EVERY if split_of(concept) == "concept"}
    assert 0.05 < len(held_out) / len(EVERY) < 0.2
    for number in range(500):
        train, other = make_sample(2, number), make_sample(2, number, "concept")
        assert _asked(train).isdisjoint(held_out)
        assert _asked(other) <= held_out
        for message in train.messages:  # nor said not to be there
            refused = re.search(r"(?:can|cannot|me|to|could) ([^:.]+?)[:.]", message.content)
            is_said = message.role == "assistant" and refused is not None
            assert not is_said or refused[1] not in held_out


def _asked(sample: Any) -> set[str]:
    called = {call.name for message in sample.messages for call in message.tool_calls}
    return {f.concept.wish for f in sample.functions if f.tool.name in called}


def test_a_sample_follows_from_its_number() -> None:
    one = [make_sample(9, number).row() for number in range(40)]
    assert one == [make_sample(9, number).row() for number in reversed(range(40))][::-1]
    assert one != [make_sample(10, number).row() for number in range(40)]


def test_years_are_no_quantities() -> None:
    year = Parameter.model_validate(
        {"name": ["year"], "type": "integer", "about": ["A.", "B."], "missing": "When?",
         "low": 1900, "high": 2030}
    )  # fmt: skip
    rng = random.Random(0)
    values = [draw(year, rng) for _ in range(200)]
    assert all(str(value) == word for value, word in values)
    assert len({value for value, _ in values}) > 60


def test_pools_have_no_entry_twice() -> None:
    for name, words in pools().items():
        assert len(words) > 6, name
        assert len(set(words)) == len(words)
        assert all(word == word.strip() for word in words), name


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("low = 1\n", "", "low and high"),
        ("high = 99", "high = 0", "low must be below high"),
        ('"{length} m?"', '"{size} m?"', "size is no parameter"),
        ('"{length} m?"', '"how much?"', "length is required, but not given"),
        ('"{length} m?"', '"{length} m {length}?"', "a parameter is given twice"),
        ('"{length} m?"', '"{length} m in {wood}?"', "wood is optional, so it belongs into"),
        ('"{length} m?"', '"{length} m [now]?"', "the clause 'now' gives nothing"),
        ('"{length} m?"', '"{length} m ]?"', "a bracket, brace or bar is out of place"),
        ("painted=true", "painted=maybe", "maybe is no choice of painted"),
        ('["fence cost"]', '["Fence Cost"]', "must be lower-case words"),
        ('"How long?"', '"How long?"\npool = "cities"', "exactly one of low and high, pool"),
        ('type = "number"', 'type = "integer"\ndecimals = 2', "an integer has no decimals"),
        ('choices = { oak = ["oak"], pine = ["pine"] }', 'pool = "trees"', "one of pools.toml"),
        ('choices = { true = ["painted"], false = ["plain"] }', 'pool = "cities"', "a boolean has"),
        (', "What a fence costs."', "", "3 descriptions or more"),
    ],
)
def test_a_wrong_concept_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "topic.toml"
    assert old in BASE
    path.write_text(BASE)
    assert len(read_topic(path)) == 1
    path.write_text(BASE.replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        read_topic(path)
    assert "fence cost" in str(caught.value).lower()


def test_tools_that_are_offered_together_do_different_things() -> None:
    """No two have a name of which half of the words are the other's."""
    for number in range(400):
        sample = make_sample(4, number)
        offered, wanted = [function.concept for function in sample.functions], _asked(sample)
        for one, other in combinations(offered, 2):
            assert one is not other
            for name, theirs in product(one.name, other.name):
                words, known = set(name.split()), set(theirs.split())
                is_alike = 2 * len(words & known) >= min(len(words), len(known))
                assert not (is_alike and {one.wish, other.wish} & wanted), (name, theirs)


def test_values_keep_their_letters_in_a_message_of_several() -> None:
    for number in range(800):
        sample = make_sample(6, number)
        if sample.sort is not Sort.SEVERAL:
            continue
        concepts_by_tool = {f.tool.name: f for f in sample.functions}
        text = sample.messages[-2].content
        for call in sample.messages[-1].tool_calls:
            function = concepts_by_tool[call.name]
            _is_said(function.concept, function.names, json.loads(call.arguments), text)


def test_a_wish_names_its_values_one_by_one_but_for_what_is_left_out() -> None:
    rng = random.Random(3)
    told = asked = 0
    for _, concept in EVERY * 3:
        function = make_function(concept, rng.choice(STYLES), rng)
        left_out = rng.randint(0, 2)
        found = spelt(function, "Please do it.", rng, left_out)
        required = [p for p in concept.parameters if not p.optional]
        if found is None:
            assert len(required) <= left_out or any(p.type == "boolean" for p in required)
            continue
        request, missing = found
        (arguments,) = request.calls
        assert len(missing) == left_out
        names = {function.names[p.name[0]] for p in required}
        gone = {function.names[p.name[0]] for p in missing}
        assert names - gone <= arguments.keys()
        assert not gone & arguments.keys()
        assert request.text.startswith("Please do it.")
        _is_said(concept, function.names, dict(arguments), request.text)
        told, asked = told + (left_out == 0), asked + bool(left_out)
    assert min(told, asked) > 200


def test_a_group_shares_its_tools_and_asks_for_all_sorts() -> None:
    held_out = {concept.wish for _, concept in EVERY if split_of(concept) == "concept"}
    sorts = Counter[Sort]()
    for number in range(30):
        group = make_group(5, number)
        assert len(group) == SIZE
        (tools,) = {tuple(f.tool.name for f in sample.functions) for sample in group}
        assert len(set(tools)) == len(tools) > 1
        (name,) = {sample.group for sample in group}
        (before,) = {sample.messages[:-2] for sample in group}  # one system message, or none
        assert name
        assert len(before) < 2
        schemas = ToolSchemas([function.tool for function in group[0].functions])
        for sample in group:
            sorts[sample.sort] += 1
            calls = sample.messages[-1].tool_calls
            assert all(schemas.check(call).valid for call in calls)
            assert bool(calls) == (sample.sort not in (Sort.IRRELEVANT, Sort.MISSING))
            assert bool(sample.needed) == (sample.sort is Sort.MISSING)
            assert set(sample.needed) <= set(tools)
            assert _asked(sample).isdisjoint(held_out)
    assert sorts.keys() == GROUP_SHARES.keys()
    for sort, share in GROUP_SHARES.items():
        assert sorts[sort] / (30 * SIZE) == pytest.approx(share, abs=0.08)
    one = [sample.row() for sample in make_group(5, 3)]
    assert one == [sample.row() for sample in make_group(5, 3)]
    assert one != [sample.row() for sample in make_group(6, 3)]


def test_what_is_asked_about_stays_when_tools_are_drawn(tmp_path: Path) -> None:
    """A request that lacks a value would else be taught beside tools that have nothing to ask."""
    path = tmp_path / "rows.jsonl"
    samples = [make_sample(3, number) for number in range(200)]
    samples += [sample for number in range(5) for sample in make_group(3, number)]
    path.write_text("".join(json.dumps(sample.row()) + "\n" for sample in samples))
    rows = read_chat_rows([str(path)])
    lacking = [row for row, s in zip(rows, samples, strict=True) if s.sort is Sort.MISSING]
    assert any(row.group for row in lacking)
    assert len(lacking) > 5
    rng = random.Random(0)
    for row in lacking:
        needed, _ = draw_tools([row], 0, rng)
        assert {tool.name for tool in needed} == row.needed != frozenset()
