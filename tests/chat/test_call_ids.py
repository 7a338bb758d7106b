"""K2's rule for ids of calls: good ones stay, bad ones are rewritten with their results."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.call_ids import CallIds, is_tool_name, name_in_id
from selenite.errors import ConversationError
from selenite.types import Message, ToolCall


def assistant(*calls: tuple[str, str]) -> Message:
    return Message("assistant", tool_calls=tuple(ToolCall(name, "{}", id) for name, id in calls))


def result(id: str | None) -> Message:
    return Message("tool", "ok", tool_call_id=id)


def ids(messages) -> list[list[str]]:
    return [[c.id for c in m.tool_calls] or [m.tool_call_id] for m in messages]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("functions.f:0", "f"),
        ("functions.functions.a.b-c:d:12", "functions.a.b-c:d"),
        (" functions.f:0\n", "f"),
        ("functions.f", "f"),
        ("f:0", "f"),
        ("call_59ad", None),
        ("functions.:0", None),
        ("functions.f g:0", None),
        ("", None),
    ],
)
def test_the_name_in_an_id(written, name):
    assert name_in_id(written) == name


def test_good_ids_stay():
    turns = [
        assistant(("f", "functions.f:0"), ("g", "functions.g:1")),
        result("functions.g:1"),
        assistant(("f", "functions.f:7")),
        result("functions.f:7"),
    ]
    assert CallIds().rewrite(turns) == turns


def test_bad_ids_are_counted_over_the_conversation_and_results_follow():
    turns = [
        assistant(("f", "call_1"), ("g", "call_2")),
        result("call_2"),
        result("call_1"),
        assistant(("f", "functions.g:2"), ("g", "call_1")),
        result("call_1"),
        result("functions.g:2"),
    ]
    assert ids(CallIds().rewrite(turns)) == [
        ["functions.f:0", "functions.g:1"],
        ["functions.g:1"],
        ["functions.f:0"],
        ["functions.f:2", "functions.g:3"],
        ["functions.g:3"],
        ["functions.f:2"],
    ]


def test_ids_that_count_per_turn_become_unique():
    turns = [assistant(("f", "functions.f:0")), result("functions.f:0")] * 3
    expected = [["functions.f:0"], ["functions.f:0"], ["functions.f:1"], ["functions.f:1"]]
    assert ids(CallIds().rewrite(turns))[:4] == expected


def test_several_calls_with_one_id_are_answered_in_order():
    turns = [assistant(("f", ""), ("f", "")), result(None), result(""), result("")]
    assert ids(CallIds().rewrite(turns)) == [
        ["functions.f:0", "functions.f:1"],
        ["functions.f:0"],
        ["functions.f:1"],
        ["functions.f:1"],
    ]


def test_what_cannot_be_mended_is_refused():
    with pytest.raises(ConversationError, match=r"tool_call_id='x'.*calls so far: 'call_1'"):
        CallIds().rewrite([assistant(("f", "call_1")), result("x")])
    with pytest.raises(ConversationError, match="a call of the tool 'f g'"):
        CallIds().rewrite([assistant(("f g", "functions.f g:0"))])


names = st.sampled_from(["f", "g", "a.b", "functions.f"])
written = st.sampled_from(
    ["", "call_1", "call_2", "functions.f:0", "functions.f:1", "functions.g:1", "functions.a.b:2"]
)


@given(turns=st.lists(st.lists(st.tuples(names, written), min_size=1, max_size=3), max_size=5))
@settings(max_examples=200, deadline=None)
def test_ids_are_good_unique_and_do_not_depend_on_what_follows(turns):
    messages = [
        message
        for calls in turns
        for message in (assistant(*calls), *(result(id) for _, id in reversed(calls)))
    ]
    rewritten = CallIds().rewrite(messages)
    calls = [call for message in rewritten for call in message.tool_calls]
    assert all(is_tool_name(call.name) and name_in_id(call.id) == call.name for call in calls)
    assert len({call.id for call in calls}) == len(calls)
    place = 0
    for calls in turns:  # each turn's results answer exactly its calls
        turn = rewritten[place : place + 1 + len(calls)]
        assert {m.tool_call_id for m in turn[1:]} == {c.id for c in turn[0].tool_calls}
        place += 1 + len(calls)
    assert CallIds().rewrite(rewritten) == rewritten
    for count in range(len(messages)):
        assert CallIds().rewrite(messages[:count]) == rewritten[:count]
