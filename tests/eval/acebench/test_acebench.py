"""ACEBench: questions written by hand in its form, and all of its own where they can be had."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selenite.chat.schema import ToolSchemas
from selenite.errors import ConfigError, DataError
from selenite.eval.acebench.files import CATEGORIES, FILES, PROMPTS, answers_path, questions_path
from selenite.eval.acebench.judge import gold, judge, names_parameter
from selenite.eval.acebench.questions import Form, Item, read_items
from selenite.eval.acebench.suite import acebench, groups
from selenite.eval.floors import FLOORS
from selenite.eval.pinned import located
from selenite.eval.question import Answer, Call

TRIP = {
    "name": "trip.book",
    "description": "Books a trip.",
    "arguments": {
        "type": "dict",
        "properties": {
            "city": {"type": "string", "description": "Where to."},
            "days": {"type": "integer", "minimum": 1},
            "options": {
                "type": "object",
                "properties": {
                    "meals": {"type": "array", "items": {"type": "string"}},
                    "price": {"type": "float"},
                },
            },
        },
        "required": ["city"],
    },
    "results": {},
}
TIME = {"name": "time_now", "description": "Tells the time.", "parameters": {}}
HISTORY = (
    "user: Book Rome.\nsystem: How long?\nuser: Three days: \nmeals, too.\n"
    "system: [trip.book(city='Rome', days=3), time_now()]\nsystem: Booked as: R1.\n"
    "user: Now Oslo.\nsystem: [trip.book(city='Oslo', options={'meals': true})]\nuser: And Bern.\n"
)
SOURCE = """
SYSTEM_PROMPT_FOR_NORMAL_DATA_EN = "Normal. {time} {function}"
SYSTEM_PROMPT_FOR_PREFERENCE_DATA_EN = "Preference. {profile} {function}"
SYSTEM_PROMPT_FOR_SPECIAL_DATA_EN = "Special. {time} {function}"
USER_PROMPT_EN = "So far: {question}"
raise SystemExit("read, not run")
"""


def write(
    folder: Path, category: str, truth: Any, question: str = "user: Go.", **more: Any
) -> None:
    entry = {
        "id": f"{category}_0",
        "question": question,
        "function": [TRIP, TIME],
        "time": "It is noon.",
        **more,
    }
    for path, line in (
        (questions_path(category), entry),
        (answers_path(category), {"id": entry["id"], "ground_truth": truth}),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(line) + "\n")


def item(folder: Path, category: str, truth: Any, form: Form = "tools", **more: Any) -> Item:
    (folder / PROMPTS).parent.mkdir(parents=True, exist_ok=True)
    (folder / PROMPTS).write_text(SOURCE)
    write(folder, category, truth, **more)
    (found,) = read_items(folder, category, form)
    return found


def is_right(asked: Item, answer: Answer) -> bool:
    return judge([asked], {asked.question.id: answer})[asked.question.id].is_right


def test_tools_are_json_schemas_under_names_that_the_api_allows(tmp_path: Path) -> None:
    trip, time = item(tmp_path, "normal_atom_list", {"trip.book": {}}).question.tools
    assert (trip.name, time.name) == ("trip_book", "time_now")
    assert trip.parameters["type"] == "object"
    assert trip.parameters["properties"]["options"]["properties"]["price"] == {"type": "number"}
    assert trip.parameters["properties"]["days"] == {"type": "integer", "minimum": 1}
    assert time.parameters == {"type": "object", "properties": {}}
    ToolSchemas((trip, time))


def test_a_history_becomes_turns(tmp_path: Path) -> None:
    asked = item(tmp_path, "normal_multi_turn_user_switch", {"time_now": {}}, question=HISTORY)
    system, *turns = asked.question.messages
    assert system.content.endswith("It is noon.")
    assert [(m.role, m.content) for m in turns] == [
        ("user", "Book Rome."),
        ("assistant", "How long?"),
        ("user", "Three days: \nmeals, too."),
        ("assistant", ""),
        ("tool", "Booked as: R1."),
        ("tool", "Booked as: R1."),
        ("user", "Now Oslo."),
        ("assistant", ""),
        ("tool", ""),
        ("user", "And Bern."),
    ]
    calls = [call for message in turns for call in message.tool_calls]
    assert [call.name for call in calls] == ["trip_book", "time_now", "trip_book"]
    assert json.loads(calls[2].arguments) == {"city": "Oslo", "options": {"meals": True}}
    assert [m.tool_call_id for m in turns if m.role == "tool"] == [call.id for call in calls]
    assert len({call.id for call in calls}) == 3
    assert asked.question.request == "And Bern."


def test_prompts_are_the_benchmarks_own_where_they_say_what_is_expected(tmp_path: Path) -> None:
    special = item(tmp_path, "special_irrelevant", "No.").question
    assert special.messages[0].content == "Special. It is noon. (offered as tools)"
    assert special.tools
    known = item(tmp_path, "normal_preference", {"time_now": {}}, profile={"diet": "vegan"})
    assert '{"diet": "vegan"}' in known.question.messages[0].content
    text = item(tmp_path, "normal_preference", {"time_now": {}}, "text", profile={"a": 1})
    assert text.question.messages[0].content == f"Preference. {{'a': 1}} {[TRIP, TIME]}"
    assert text.question.messages[1].content == "So far: user: Go."
    assert not text.question.tools


ROME = {"city": "Rome", "options": {"meals": ["breakfast", "dinner"], "price": 20}}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (ROME, True),
        (ROME | {"city": "rome"}, True),
        (ROME | {"options": {"meals": ["Breakfast", "dinner"], "price": 20.0}}, True),
        (ROME | {"options": {"meals": "breakfast", "price": 20}}, False),
        (ROME | {"options": {"meals": ["dinner", "breakfast"], "price": 20}}, False),
        (ROME | {"options": {"meals": ["breakfast"], "price": 20}}, False),
        (ROME | {"options": {"meals": ["breakfast", "dinner"], "price": "20"}}, False),
        (ROME | {"options": {"meals": ["breakfast", "dinner"]}}, False),
        (ROME | {"city": "Rome, Italy"}, False),
        ({"city": "Rome"}, False),
        (ROME | {"days": 3}, False),
        (None, False),
    ],
)
def test_calls_are_compared_by_type_and_whole(
    tmp_path: Path, arguments: dict[str, Any] | None, expected: bool
) -> None:
    asked = item(tmp_path, "normal_atom_object_deep", {"trip.book": ROME})
    assert is_right(asked, Answer(calls=(Call("trip_book", arguments),))) is expected


def test_calls_of_one_tool_come_in_any_order_and_alternatives_do(tmp_path: Path) -> None:
    twice = {"trip.book_1": {"city": "Rome"}, "trip.book_2": {"city": "Oslo"}, "time_now": {}}
    asked = item(tmp_path, "normal_single_turn_parallel_function", [{"time_now": {}}, twice])
    rome, oslo = (Call("trip_book", {"city": city}) for city in ("Rome", "Oslo"))
    now = Call("time_now", {})
    assert is_right(asked, Answer(calls=(now, oslo, rome)))
    assert is_right(asked, Answer(calls=(now,)))
    assert not is_right(asked, Answer(calls=(rome, rome, now)))
    assert not is_right(asked, Answer(calls=(rome, oslo)))
    assert not is_right(asked, Answer(calls=(now, oslo, rome), malformed=1))
    assert not is_right(asked, Answer(calls=(now,), too_long=True))


def test_calls_as_text_count_where_they_are_asked_for(tmp_path: Path) -> None:
    written = Answer("[trip.book(city='Rome')]")
    for form, expected in (("tools", False), ("text", True)):
        asked = item(tmp_path, "normal_atom_enum", {"trip.book": {"city": "Rome"}}, form)
        assert is_right(asked, written) is expected
        assert is_right(asked, gold(asked))


@pytest.mark.parametrize(
    ("category", "truth", "reply", "expected"),
    [
        (
            "special_incomplete",
            {"trip.book": [" startDate ", "city"]},
            "A start date? A city?",
            True,
        ),
        ("special_incomplete", {"trip.book": ["startDate", "city"]}, "Which city?", False),
        ("special_incomplete", {"trip.book": ["id"]}, "I need more, to provide it.", False),
        ("special_incomplete", {"trip.book": ["city"]}, "[trip.book(city='Rome')]", False),
        ("special_error_param", {"mail": ["a@b@c"]}, "A@B@c is not an address.", True),
        ("special_error_param", {"mail": ["a@b@c"]}, "Your address is not valid.", False),
        ("special_error_param", {"mail": ["a@b@c"]}, "Write to a@b@c", False),
        ("special_irrelevant", "No.", "I have nothing for that.", True),
        ("special_irrelevant", "No.", "", False),
        ("special_irrelevant", "No.", "[time_now()]", False),
    ],
)
def test_where_no_call_is_due_the_fault_must_be_named(
    tmp_path: Path, category: str, truth: Any, reply: str, expected: bool
) -> None:
    asked = item(tmp_path, category, truth)
    assert is_right(asked, Answer(reply)) is expected
    assert not is_right(asked, Answer(reply, calls=(Call("time_now", {}),)))
    assert not is_right(asked, Answer(reply, malformed=1))
    assert is_right(asked, gold(asked))


def test_a_name_is_found_as_itself_and_in_words() -> None:
    for text in ("pageSize", "page_size", "the page size", "PAGE SIZE?", "(page-size)"):
        assert names_parameter(text, "pageSize"), text
    for text in ("page", "pages sized", "size page", "pagesize"):
        assert not names_parameter(text, "pageSize"), text


def test_a_fault_of_the_pipeline_has_no_verdict(tmp_path: Path) -> None:
    asked = item(tmp_path, "special_irrelevant", "No.")
    assert judge([asked], {asked.question.id: Answer(error="connection: refused")}) == {}


def test_other_files_and_other_categories_are_refused(tmp_path: Path) -> None:
    item(tmp_path, "special_irrelevant", "No.")
    (tmp_path / questions_path("special_irrelevant")).write_text("{}\n")
    with pytest.raises(DataError, match="not the files of ACEBench"):
        read_items(tmp_path, "special_irrelevant")
    with pytest.raises(ConfigError, match="needs the benchmark's own simulators"):
        acebench(["agent_multi_turn"], data=tmp_path)
    with pytest.raises(ConfigError, match="category 'bool': must be one of normal_atom_bool"):
        acebench(["bool"], data=tmp_path)
    with pytest.raises(ConfigError, match=rf"check out {FILES.commit} there, .* --data"):
        acebench(data=tmp_path)


def test_groups_are_means_of_what_is_whole() -> None:
    shares = {name: float(name.startswith("special")) for name in CATEGORIES}
    assert groups(shares | {"normal_preference": 0.6}) == pytest.approx(
        {"normal": 0.05, "special": 1.0}
    )
    assert groups({name: 1.0 for name in CATEGORIES if "atom" not in name}) == {"special": 1.0}


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return located(FILES)
    except ConfigError as error:
        pytest.skip(str(error))


COUNTS = {
    **dict.fromkeys(CATEGORIES, 50),
    "normal_single_turn_single_function": 100, "normal_single_turn_parallel_function": 100,
    "normal_multi_turn_user_adjust": 123, "normal_multi_turn_user_switch": 100,
}  # fmt: skip


def right(suite_form: Form, folder: Path, answers: dict[str, Answer] | None) -> Counter[str]:
    suite = acebench(data=folder, form=suite_form)
    verdicts = suite.judge(suite.gold if answers is None else answers)
    assert len(verdicts) == sum(COUNTS.values())
    return Counter(q.category for q in suite.questions if verdicts[q.id].is_right)


@pytest.mark.network
@pytest.mark.parametrize("form", ["tools", "text"])
def test_the_ceiling_is_1_everywhere(folder: Path, form: Form) -> None:
    assert right(form, folder, None) == COUNTS


@pytest.mark.network
def test_the_floors_are_what_the_page_says(folder: Path) -> None:
    questions = acebench(data=folder).questions
    null = right("tools", folder, {q.id: FLOORS["null"](q) for q in questions})
    assert null == {"special_irrelevant": 50}
    first = right("tools", folder, {q.id: FLOORS["first tool"](q) for q in questions})
    assert first == {"normal_atom_enum": 1}
    echo = right("tools", folder, {q.id: Answer(q.request) for q in questions})
    assert echo == {"special_incomplete": 1, "special_error_param": 3, "special_irrelevant": 50}
    listed = right(
        "tools",
        folder,
        {q.id: Answer(str([[*t.parameters["properties"]] for t in q.tools])) for q in questions},
    )
    assert listed == {"special_incomplete": 39, "special_irrelevant": 50}


@pytest.mark.network
def test_all_tools_have_schemas_and_all_past_calls_are_read(folder: Path) -> None:
    for category in CATEGORIES:
        for found in read_items(folder, category)[::10]:
            ToolSchemas(found.question.tools)
            said = [m for m in found.question.messages if m.role == "assistant"]
            assert not any(message.content.startswith("[") for message in said)
