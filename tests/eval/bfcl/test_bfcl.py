"""BFCL as it comes out of its wheel: floors and ceiling, our comparison against its checker."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.sandbox.sandbox import availability
from selenite.chat.schema import ToolSchemas
from selenite.errors import ConfigError, EndpointError
from selenite.eval.bfcl.questions import CATEGORIES, WHEEL, Item, gold, read_items, wanted
from selenite.eval.bfcl.score import judge, leaderboard
from selenite.eval.bfcl.suite import bfcl
from selenite.eval.comparison import same_calls
from selenite.eval.floors import FLOORS
from selenite.eval.question import Answer, Call
from selenite.eval.wheels import unpacked

COUNTS = {
    "simple_python": 400, "multiple": 200, "parallel": 200, "parallel_multiple": 200,
    "irrelevance": 240, "live_simple": 258, "live_multiple": 1053, "live_parallel": 16,
    "live_parallel_multiple": 24, "live_irrelevance": 884, "live_relevance": 16,
}  # fmt: skip
# Right answers of the first acceptable values. The questions that are missed have none: what their
# answers hold is not what their own tools take.
GOLD = COUNTS | {"parallel_multiple": 199, "live_simple": 256, "live_multiple": 1051}


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return unpacked(WHEEL)
    except EndpointError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def items(folder: Path) -> dict[str, list[Item]]:
    return {name: read_items(folder, name) for name in CATEGORIES}


@pytest.fixture
def sandbox() -> None:
    decision = availability()
    if not decision.value:
        pytest.skip(decision.reason)


def test_all_questions_are_read(items: dict[str, list[Item]]) -> None:
    assert {name: len(found) for name, found in items.items()} == COUNTS
    ids = [item.question.id for found in items.values() for item in found]
    assert len(set(ids)) == len(ids)


def test_tools_have_schemas_that_can_be_checked(items: dict[str, list[Item]]) -> None:
    for found in items.values():
        for item in found[::7]:
            ToolSchemas(item.question.tools)
            assert all("." not in tool.name for tool in item.question.tools)


TYPES: dict[str, Any] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
}  # fmt: skip


def choices(schema: Any) -> Iterator[tuple[str, list[Any]]]:
    """Type and values of every enum in a schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("enum"), list):
            yield schema["type"], schema["enum"]
        for value in schema.values():
            yield from choices(value)


def test_every_choice_has_a_value_of_its_type(items: dict[str, list[Item]]) -> None:
    """As they come, 83 questions have tools with a parameter that no value fits."""
    found = [
        choice
        for known in items.values()
        for item in known
        for tool in item.question.tools
        for choice in choices(tool.parameters)
    ]
    assert len(found) > 5000
    for kind, values in found:
        assert any(isinstance(value, TYPES[kind]) for value in values), (kind, values)
    assert ("boolean", [True, False]) in found


def right_by_category(every: list[Item], answers: dict[str, Answer], folder: Path) -> Counter[str]:
    verdicts = judge(every, answers, folder)
    assert len(verdicts) == len(every)
    right = Counter[str]()
    for item in every:
        right[item.question.category] += verdicts[item.question.id].is_right
    return right


@pytest.fixture(scope="module")
def every(items: dict[str, list[Item]]) -> list[Item]:
    return [item for found in items.values() for item in found]


@pytest.mark.usefixtures("sandbox")
def test_the_ceiling_is_what_it_is(folder: Path, every: list[Item]) -> None:
    answers = {item.question.id: gold(item) for item in every}
    assert right_by_category(every, answers, folder) == GOLD


@pytest.mark.usefixtures("sandbox")
def test_who_never_calls_is_right_only_where_no_call_is_due(
    folder: Path, every: list[Item]
) -> None:
    answers = {item.question.id: FLOORS["null"](item.question) for item in every}
    found = right_by_category(every, answers, folder)
    assert found == {name: n if "irrelevance" in name else 0 for name, n in COUNTS.items()}


def mutated(item: Item, rng: random.Random) -> Answer:
    """The gold answer with something changed in half of its calls."""
    calls = []
    for call in gold(item).calls:
        arguments = dict(call.arguments or {})
        if arguments and rng.random() < 0.5:
            name = rng.choice(list(arguments))
            arguments = changed(arguments, name, rng)
        calls.append(Call(call.name, arguments))
    if rng.random() < 0.1:
        calls = calls[:-1]
    rng.shuffle(calls)
    return Answer(calls=tuple(calls))


def changed(arguments: dict[str, Any], name: str, rng: random.Random) -> dict[str, Any]:
    value = arguments[name]
    match rng.choice(["drop", "type", "change", "extra", "case"]):
        case "drop":
            return {key: kept for key, kept in arguments.items() if key != name}
        case "type":
            return arguments | {name: str(value)}
        case "extra":
            return arguments | {"unheard_of": 1}
        case "case" if isinstance(value, str):
            return arguments | {name: value.upper()}
    if isinstance(value, bool):
        return arguments | {name: not value}
    if isinstance(value, int | float):
        return arguments | {name: value + 1}
    return arguments | {name: f"{value} x"} if isinstance(value, str) else arguments


@pytest.mark.usefixtures("sandbox")
def test_our_comparison_agrees_with_the_checker(folder: Path, every: list[Item]) -> None:
    rng = random.Random(5)
    asked = [item for item in every if "relevance" not in item.question.category]
    answers = {item.question.id: mutated(item, rng) for item in asked}
    verdicts = judge(asked, answers, folder)
    assert len(verdicts) == len(asked) > 2000
    right = sum(verdict.is_right for verdict in verdicts.values())
    assert 0.2 * len(asked) < right < 0.9 * len(asked)  # so that both verdicts were tried
    differing = [
        item.question.id
        for item in asked
        if same_calls(answers[item.question.id].calls, wanted(item))
        != verdicts[item.question.id].is_right
    ]
    # A parameter that the tool does not have, and the answer key does.
    assert len(differing) <= 0.002 * len(asked), differing


@pytest.mark.usefixtures("sandbox")
def test_an_answer_is_judged_and_not_run(folder: Path, items: dict[str, list[Item]]) -> None:
    """What a model writes reaches the checker as data."""
    item = items["simple_python"][0]
    attack = "__import__('os').system('touch /tmp/owned')"
    name = item.question.tools[0].name
    for calls in (
        (Call(attack, {}),),
        (Call(name, {"base": attack, "height": 5}),),
        (Call(name, {attack: 1}),),
    ):
        verdicts = judge([item], {item.question.id: Answer(calls=calls)}, folder)
        assert not verdicts[item.question.id].is_right
    assert not Path("/tmp/owned").exists()


def test_a_fault_of_the_pipeline_has_no_verdict(folder: Path, items: dict[str, list[Item]]) -> None:
    found = items["irrelevance"][:3]
    answers = {item.question.id: Answer(error="connection: refused") for item in found}
    assert judge(found, answers, folder) == {}


def rows() -> Iterator[tuple[str, list[float], float, float]]:
    """Of the public leaderboard (December 2025): simple of three languages, multiple, parallel,
    parallel_multiple; and the non-live average."""
    yield "Granite-4.0-350m FC", [61.7, 84.5, 70.0, 55.5], 67.9, 0.05
    yield "Hammer2.1-0.5b FC", [62.4, 81.0, 69.0, 51.5], 66.0, 0.05
    yield "Qwen3-0.6B FC", [64.2, 86.0, 67.5, 69.5], 71.8, 0.05
    yield "Llama-3.2-1B FC", [44.0, 50.5, 44.0, 15.0], 38.4, 0.05
    yield "Qwen3-1.7B FC", [70.7, 92.5, 88.5, 80.0], 82.9, 0.05


@pytest.mark.parametrize(("name", "parts", "average", "rounding"), [*rows()])
def test_the_average_is_the_leaderboards(
    name: str, parts: list[float], average: float, rounding: float
) -> None:
    simple, multiple, parallel, parallel_multiple = parts
    scores = dict.fromkeys(("simple_python", "simple_java", "simple_javascript"), simple)
    scores |= {
        "multiple": multiple, "parallel": parallel, "parallel_multiple": parallel_multiple
    }  # fmt: skip
    assert leaderboard(scores, {})["non_live_ast"] == pytest.approx(average, abs=0.02 + rounding)


def test_the_live_average_is_weighted_by_questions() -> None:
    scores = {
        "live_simple": 1.0, "live_multiple": 0.5,
        "live_parallel": 0.0, "live_parallel_multiple": 0.25,
    }  # fmt: skip
    expected = (258 + 0.5 * 1053 + 0.25 * 24) / (258 + 1053 + 16 + 24)
    assert leaderboard(scores, COUNTS)["live_ast"] == pytest.approx(expected)
    assert "live_ast" not in leaderboard({"live_simple": 1.0}, COUNTS)


def test_an_unknown_category_is_refused() -> None:
    with pytest.raises(ConfigError, match="category 'sample': must be one of simple_python"):
        bfcl(["sample"])
