"""Leaks: each kind is found where it was planted, and nothing where nothing was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selenite.agent.rows import write_rows
from selenite.agent.synthesis.benchmark_calls import normal, signature_of
from selenite.agent.synthesis.benchmark_files import read_benchmark
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.leaks import Kind, Leaks, find_leaks, write_leaks
from selenite.agent.synthesis.pipeline import synthesize, trajectories
from selenite.agent.synthesis.word_runs import RunIndex
from selenite.cli.main import app
from selenite.errors import ConfigError, DataError

PROMPT = "Find the area of a triangle with a base of 10 units and height of 5 units."
NOTHING = "The weather here is fine today and nobody asks for anything at all."


def function(name: str, /, doc: str = "", **types: str) -> dict[str, Any]:
    properties = {parameter: {"type": kind} for parameter, kind in types.items()}
    parameters = {"type": "object", "properties": properties}
    return {"name": name, "description": doc, "parameters": parameters}


def tool(name: str, /, domain: str = "commerce-0000", **types: str) -> dict[str, Any]:
    return {**function(name, **types), "domain": domain}


def row(
    id: str = "0-0",
    said: str = NOTHING,
    calls: Sequence[dict[str, Any]] = (),
    answer: str = "Done.",
) -> dict[str, Any]:
    """A trajectory that calls some functions."""
    return {
        "id": id,
        "task": {"setting": {"domain": 0}},
        "split": "train",
        "messages": [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": said},
            {"role": "assistant", "content": answer},
        ],
        "tools": [{"type": "function", "function": call} for call in calls],
        "events": [{"tool": call["name"], "arguments": {}, "result": {}} for call in calls],
    }


def corpus(
    folder: Path, rows: Sequence[dict[str, Any]] = (), tools: Sequence[dict[str, Any]] = ()
) -> Path:
    write_rows(folder / "shards" / "00000.jsonl.zst", [*rows] or [row()])
    write_rows(folder / "tools.jsonl.zst", [*tools])
    (folder / "duplicates.json").write_text("{}")
    return folder


def benchmark(folder: Path, **files: Any) -> Path:
    """``a_json=[...]`` is the file ``a.json`` of JSON lines, ``a_py="..."`` of text."""
    folder.mkdir()
    for name, content in files.items():
        lines = content if isinstance(content, str) else "\n".join(map(json.dumps, content))
        (folder / ".".join(name.rsplit("_", 1))).write_text(lines)
    return folder


def kinds(found: Leaks) -> dict[str, int]:
    return {kind.value: count for kind in Kind if (count := len(found.of(kind)))}


AREA = function("calculate_area", "Area of a triangle.", base="integer", height="integer")
BFCL = {
    "questions_json": [
        {"id": "0", "question": [[{"role": "user", "content": PROMPT}]], "function": [AREA]}
    ],
    "answers_json": [
        {"id": "0", "ground_truth": [{"calculate_area": {"base": [10], "height": [5]}}]}
    ],
}


def test_nothing_in_common(tmp_path: Path) -> None:
    found = find_leaks(
        corpus(tmp_path / "corpus", tools=[tool("get_order", id="string")]),
        [benchmark(tmp_path / "bfcl", **BFCL)],
    )
    assert found.overlaps == []
    assert found.compared["benchmark runs of words"] == 17 - 7  # of 17 words
    assert found.compared["benchmark tools"] == found.compared["benchmark solutions"] == 1


@pytest.mark.parametrize("place", ["user", "assistant", "call", "tool"])
def test_eight_words_in_a_row_are_found_wherever_they_are(tmp_path: Path, place: str) -> None:
    leaked = "so: FIND the area of a triangle, with a base of 12 units"
    planted = {"user": row(said=leaked), "assistant": row(answer=leaked)}.get(place, row())
    tools = []
    if place == "call":
        arguments = json.dumps({"text": leaked})
        call = {"id": "0", "function": {"name": "send", "arguments": arguments}}
        planted["messages"][2] |= {"content": None, "tool_calls": [call]}
    if place == "tool":
        tools = [{**tool("area"), "description": leaked}]
    found = find_leaks(
        corpus(tmp_path / "corpus", [row("0-1"), planted], tools),
        [benchmark(tmp_path / "bfcl", **BFCL)],
    )
    (overlap,) = found.of(Kind.TEXT)
    assert overlap.what == "find the area of a triangle with a base of"
    assert (overlap.count, overlap.benchmark) == (1, "bfcl/questions.json")
    assert found.num_fatal == 1


@pytest.mark.parametrize("form", ["file", "data set"])
def test_rows_of_chat_are_compared_too(tmp_path: Path, form: str) -> None:
    """Two tools of one name, of which the second is the benchmark's."""
    said = "find the area of a triangle with a base of 3"
    area = {"type": "function", "function": AREA}
    other = {"type": "function", "function": function("calculate_area", "Rooms.", room="string")}
    rows = [
        {"messages": [{"role": "user", "content": said}], "tools": [other]},
        {"messages": [{"role": "user", "content": "Hello."}], "tools": [area]},
        {"messages": [{"role": "user", "content": "Bye."}], "tools": None},
        {
            "messages": [
                {"role": "user"},
                {"role": "assistant", "content": None, "reasoning_content": said},
            ],
            "tools": [{"type": "function", "function": {"name": "ping"}}],
        },
    ]
    own = tmp_path / "data"
    own.mkdir()
    (own / "rows.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    if form == "file":
        own = own / "rows.jsonl"
    else:
        (own / "dataset.json").write_text("{}")
    found, path = write_leaks(own, [benchmark(tmp_path / "bfcl", **BFCL)])
    assert json.loads(path.read_text())["fatal"] == found.num_fatal == 2
    assert kinds(found) == {"text": 1, "tool": 1, "name": 1}
    assert found.of(Kind.TEXT)[0].count == 2
    assert found.of(Kind.TOOL)[0].corpus == "rows.jsonl, line 2 calculate_area"
    assert found.compared["conversations"] == 4


def test_seven_words_are_no_leak(tmp_path: Path) -> None:
    said = "Find the area of a triangle with the base of 10 units and height of 6."
    own = corpus(tmp_path / "corpus", [row(said=said)])
    assert not find_leaks(own, [benchmark(tmp_path / "bfcl", **BFCL)]).overlaps


def test_stock_phrases_count_only_beside_something_else() -> None:
    index = RunIndex({"Can you tell me the name of the oldest theatre in Vienna?": "a"})
    assert not list(index.shared("Hi, can you tell me the name of the profile?"))
    assert not list(index.shared("can you tell me the name of the oldest profile"))
    assert list(index.shared("can you tell me the name of the oldest theatre in Graz")) == [
        ("can you tell me the name of the oldest theatre in", "a")
    ]
    numbers = RunIndex({"1 2 3 4 5 6 7 8 9 10": "a"})
    assert len(numbers) == 3
    assert not list(numbers.shared("1 2 3 4 5 6 7 8 9 10"))


def test_two_runs_of_one_text_are_two() -> None:
    one, two = "alpha beta gamma delta eps zeta eta theta", "iota kappa la mu nu xi omicron pi rho"
    index = RunIndex({one: "a", two: "b"})
    assert list(index.shared(f"{one} and {two}")) == [(one, "a"), (two, "b")]


def test_a_copied_tool_is_fatal_and_its_name_alone_is_not(tmp_path: Path) -> None:
    own = corpus(
        tmp_path / "corpus",
        tools=[
            tool("calculateArea", base="integer", height="integer"),
            tool("calculate-area", "commerce-0001", side="number"),
            tool("Calculate.Area", "commerce-0002", base="integer", height="string"),
        ],
    )
    found = find_leaks(own, [benchmark(tmp_path / "bfcl", **BFCL)])
    assert kinds(found) == {"tool": 1, "name": 1}
    assert found.of(Kind.TOOL)[0].what == "calculatearea(base:integer, height:integer)"
    assert found.of(Kind.NAME)[0].count == 2
    assert found.num_fatal == 1


def test_one_equal_parameter_is_no_copy(tmp_path: Path) -> None:
    known = [{"function": [function("get_user", user_id="string")]}]
    own = corpus(tmp_path / "corpus", tools=[tool("get_user", user_id="string")])
    found = find_leaks(own, [benchmark(tmp_path / "other", a_jsonl=known)])
    assert kinds(found) == {"name": 1}


FIND = function("find_user", name="string", zip="string")
CHANGE = function("change_order", order_id="string", item_ids="array")


def said_call(name: str) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": "{}"}}]}


SOLUTIONS: dict[str, Any] = {
    "tau2": {
        "evaluation_criteria": {
            "actions": [
                {"name": "find_user", "arguments": {"name": "Ada"}},
                {"name": "change_order", "arguments": {}},
            ]
        }
    },
    "bfcl": {"ground_truth": [{"find_user": {"name": ["A"]}}, {"change_order": {"item_ids": [1]}}]},
    "bfcl multi-turn": {"ground_truth": [["find_user(name='Ada')"], ["change_order()"]]},
    "acebench": {"ground_truth": {"find_user": {"name": "Ada"}, "change_order_1": {}}},
    "acebench agent": {"mile_stone": ["[find_user(name='Ada')] ", "[change_order()]"]},
    "openai": {
        "messages": [
            said_call("find_user"),
            {"role": "tool", "content": "{}"},
            said_call("change_order"),
        ]
    },
}


@pytest.mark.parametrize("form", SOLUTIONS)
def test_the_same_sequence_of_calls_is_fatal_in_every_form(tmp_path: Path, form: str) -> None:
    rows = [{"tools": [FIND, CHANGE], **SOLUTIONS[form]}]
    theirs = benchmark(tmp_path / "other", a_jsonl=rows)
    assert [*read_benchmark([theirs]).solutions] == [("find_user", "change_order")]
    lookup = function("lookup", zip="string", name="string")
    amend = function("amend", itemIds="array", order_id="string")
    own = [row("0-0", calls=[lookup, amend]), row("0-1", calls=[amend, lookup])]
    found = find_leaks(corpus(tmp_path / "corpus", own), [theirs])
    (overlap,) = found.of(Kind.SEQUENCE)
    assert overlap.what == "(name:string, zip:string) → (itemids:array, orderid:string)"
    assert (overlap.corpus, overlap.count) == ("0-0", 1)
    assert kinds(found) == {"sequence": 1, "types": 1}


def test_equal_types_alone_are_listed(tmp_path: Path) -> None:
    theirs = benchmark(tmp_path / "other", a_jsonl=[{"tools": [FIND, CHANGE], **SOLUTIONS["tau2"]}])
    one, two = function("a", b="string", c="string"), function("d", e="array", f="string")
    found = find_leaks(corpus(tmp_path / "corpus", [row(calls=[one, two])]), [theirs])
    assert kinds(found) == {"types": 1}
    assert found.num_fatal == 0
    assert not find_leaks(corpus(tmp_path / "same", [row(calls=[one, one])]), [theirs]).overlaps


def test_a_repeated_tool_has_one_signature(tmp_path: Path) -> None:
    """A benchmark may describe a name twice, but a solution does not mean both."""
    twice = [{"function": [FIND, function("find_user", order_id="string", item_ids="array")]}]
    calls = [{"name": "find_user", "arguments": {}}] * 2
    theirs = benchmark(tmp_path / "other", a_jsonl=[*twice, {"actions": calls}])
    own = corpus(tmp_path / "corpus", [row(calls=[FIND, CHANGE])])
    assert not find_leaks(own, [theirs]).of(Kind.SEQUENCE)


SOURCE = '''
from typing import List, Literal, Optional

class Tools:
    """Tools of a shop that nobody outside of this benchmark knows."""

    def change_order(self, order_id: str, item_ids: List[str], note: Optional[str] = None,
                     kind: Literal["a", "b"] = "a", count: "int" = 1, day: int | None = None):
        """Changes an order."""

    def helper(self): pass

    def _hidden(self):
        """Not a tool."""
'''


def test_python_sources_are_read(tmp_path: Path) -> None:
    theirs = benchmark(tmp_path / "other", a_py=SOURCE)
    found = read_benchmark([theirs])
    (signature,) = found.tools["change_order"]
    assert str(signature) == (
        "(count:integer, day:integer, itemids:array, kind:string, note:string, orderid:string)"
    )
    assert [*found.tools] == ["change_order"]
    said = "I need the tools of a shop that nobody outside of this town has"
    own = corpus(tmp_path / "corpus", [row(said=said)])
    assert [each.what for each in find_leaks(own, [theirs]).of(Kind.TEXT)] == [
        "tools of a shop that nobody outside of this"
    ]


def test_files_that_are_not_what_they_are_named(tmp_path: Path) -> None:
    theirs = benchmark(tmp_path / "other", a_json="{broken", b_py="def (", c_md=PROMPT, d_png="x")
    (theirs / "noname").write_text("x")
    found = read_benchmark([theirs])
    assert found.as_text == ["other/a.json", "other/b.py"]
    assert found.skipped == {".png": 1, "noname": 1}
    assert found.texts[PROMPT] == "other/c.md"
    assert read_benchmark([theirs / "c.md"]).texts == {PROMPT: "c.md"}


def test_paths_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_benchmark([tmp_path / "missing"])
    with pytest.raises(DataError, match="unpack"):
        read_benchmark([benchmark(tmp_path / "other", a_whl="x")])
    with pytest.raises(ConfigError, match="folder of a corpus"):
        find_leaks(tmp_path, [benchmark(tmp_path / "bfcl", **BFCL)])


@pytest.mark.parametrize("name", ["createOrder", "create_order", "create-order", "Create.Order"])
def test_styles_of_names_are_one(name: str) -> None:
    assert normal(name) == "createorder"


def test_types_of_other_languages() -> None:
    schema = {
        "type": "dict",
        "properties": {
            "a": {"type": "float"},
            "b": {"type": "HashMap"},
            "c": {"enum": ["x"]},
            "d": {"type": ["string", "null"]},
            "e": {"type": "String"},
        },
    }
    expected = "(a:number, b:object, c:string, d:any, e:string)"
    assert str(signature_of(schema)) == expected
    assert str(signature_of({})) == "()"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    synthesize(SynthesisConfig(out_dir=folder, seed=5, domains=4, tasks=40, workers=1))
    return folder


def test_a_real_corpus_from_the_command_line(real: Path, tmp_path: Path) -> None:
    clean = benchmark(tmp_path / "bfcl", **BFCL)
    result = CliRunner().invoke(app, ["synth", "leaks", str(real), "--against", str(clean)])
    assert result.exit_code == 0, result.output
    assert json.loads((real / "leaks.json").read_text())["fatal"] == 0
    found = next(each for each in trajectories(real) if len(each["messages"][1]["content"]) > 80)
    turn = found["messages"][1]["content"]
    theirs = benchmark(tmp_path / "copied", a_jsonl=[{"prompt": turn}])
    arguments = ["synth", "leaks", str(real), "--against", str(clean), "--against", str(theirs)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1, result.output
    assert "which is fatal" in result.output
    record = json.loads((real / "leaks.json").read_text())
    assert {each["benchmark"] for each in record["overlaps"]} == {"copied/a.jsonl"}
    assert any(each["corpus"] == f"{found['id']} user" for each in record["overlaps"])
