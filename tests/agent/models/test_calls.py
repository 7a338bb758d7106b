"""Tool calls: wrong ones are told to the model, or handed out with what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selenite.agent.models.failure import ModelError, Reason
from selenite.chat.schema import CallFault
from selenite.errors import ConversationError
from selenite.types import Message, ToolCall, ToolSpec
from tests.agent.models.stub import (
    ASKED,
    GET_ORDER,
    LIST_ORDERS,
    answer,
    calling,
    last_words,
    model_at,
    scripted,
    sent,
)

TOOLS = [GET_ORDER, LIST_ORDERS]
GOOD = calling(("get_order", '{"id": 3}'))
WRONG: dict[str, tuple[Any, str | None, str]] = {
    "name": (calling(("fetch_order", '{"id": 3}')), None, "no tool 'fetch_order'"),
    "no name": (calling(("", "{}")), None, "no tool ''"),
    "no json": (calling(("get_order", '{"id": ')), None, "You wrote: "),
    "no object": (calling(("get_order", "3")), None, "are a int"),
    "no schema": (calling(("get_order", '{"id": "three"}')), None, "'three' is not of type"),
    "one of two": (calling(("order.list", "{}"), ("get_order", "{}")), None, "not run"),
    "none at all": (answer("Sure."), "required", "a tool must be called"),
    "another": (calling(("order.list", "{}")), "get_order", "tool 'get_order' must be called"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_told_and_made_again(name: str) -> None:
    wrong, choice, detail = WRONG[name]
    with scripted(wrong, GOOD) as server, model_at(server.url) as model:
        right = model.complete(ASKED, tools=TOOLS, tool_choice=choice)
        totals = model.ledger.totals()
    assert right.tool_calls == (ToolCall("get_order", '{"id": 3}', "c0"),)
    assert right.call_checks[0].valid
    first, second = sent(server)
    assert second["tools"] == first["tools"]
    turns = second["messages"][len(first["messages"]) :]
    assert any(detail in turn["content"] for turn in turns[1:])
    asked = [call["id"] for call in turns[0].get("tool_calls", ())]
    assert [turn["tool_call_id"] for turn in turns[1:] if turn["role"] == "tool"] == asked
    for call in turns[0].get("tool_calls", ()):  # a history that every endpoint takes
        assert isinstance(json.loads(call["function"]["arguments"]), dict)
        assert call["function"]["name"]
    assert totals.faults == {"wrong_call": 1}
    assert (totals.counts["repairs"], totals.counts["wrong_calls"]) == (1, 0)
    totals.check_integrity()


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_that_stay_wrong(name: str) -> None:
    wrong, choice, _ = WRONG[name]
    with scripted(wrong) as server, model_at(server.url, repairs=1) as model:
        with pytest.raises(ModelError) as failed:
            model.complete(ASKED, tools=TOOLS, tool_choice=choice)
        assert len(server.requests) == 2
        assert failed.value.reason is Reason.WRONG_CALL
        assert failed.value.completion is not None
        handed = model.complete(ASKED, tools=TOOLS, tool_choice=choice, repair_calls=False)
        totals = model.ledger.totals()
    assert handed.tool_calls == failed.value.completion.tool_calls
    assert len(handed.call_checks) == len(handed.tool_calls)
    wrong_calls = sum(not check.valid for check in handed.call_checks)
    assert totals.counts["wrong_calls"] == wrong_calls
    assert totals.failed == {"wrong_call": 1}
    totals.check_integrity()


def test_calls_that_nobody_asked_for() -> None:
    with scripted(GOOD, answer("Well.")) as server, model_at(server.url) as model:
        assert model.complete(ASKED).text == "Well."
        assert "tools" not in sent(server)[1]
        assert [turn["role"] for turn in last_words(sent(server)[1], 2)] == ["assistant", "user"]
    with scripted(GOOD, answer("Well.")) as server, model_at(server.url) as model:
        assert model.complete(ASKED, tools=TOOLS, tool_choice="none").text == "Well."
        assert "no tool may be called" in last_words(sent(server)[1])[0]["content"]


def test_a_call_that_is_cut() -> None:
    cut = calling(("get_order", '{"id": '), finish="length")
    with (
        scripted(cut) as server,
        model_at(server.url) as model,
        pytest.raises(ModelError) as failed,
    ):
        model.complete(ASKED, tools=TOOLS)
    assert failed.value.reason is Reason.TRUNCATED
    assert model.ledger.totals().counts["truncated"] == 3


def test_tools_of_one_name() -> None:
    with model_at("http://127.0.0.1:9") as model, pytest.raises(ConversationError, match="named"):
        model.complete(ASKED, tools=[GET_ORDER, GET_ORDER])


def test_a_tool_that_cannot_be_checked() -> None:
    tool = ToolSpec("f", "", {"type": "object", "$ref": "http://nowhere.example/s"})
    with scripted(calling(("f", "{}"))) as server, model_at(server.url) as model:
        with pytest.raises(ModelError) as failed:
            model.complete(ASKED, tools=[tool])
        handed = model.complete(ASKED, tools=[tool], repair_calls=False)
        assert len(server.requests) == 2
    assert failed.value.reason is Reason.UNCHECKABLE
    assert handed.call_checks[0].fault is CallFault.UNCHECKABLE


def test_a_conversation_with_calls_on_the_wire() -> None:
    messages = [
        *ASKED,
        Message(
            "assistant",
            tool_calls=(ToolCall("get_order", '{"id": 3}', "a"),),
            reasoning="Look it up.",
        ),
        Message("tool", "größe", tool_call_id="a"),
        Message("user", "And?", name="ann"),
    ]
    with scripted(answer("ok")) as server, model_at(server.url) as model:
        model.complete(messages, tools=TOOLS, tool_choice="get_order", repair_calls=False)
    body = sent(server)[0]
    assert last_words(body, 3) == [
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Look it up.",
            "tool_calls": [
                {
                    "id": "a",
                    "type": "function",
                    "function": {"name": "get_order", "arguments": '{"id": 3}'},
                }
            ],
        },
        {"role": "tool", "content": "größe", "tool_call_id": "a"},
        {"role": "user", "content": "And?", "name": "ann"},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "get_order"}}
    assert body["tools"][0]["function"] == {
        "name": "get_order",
        "description": "Reads an order.",
        "parameters": GET_ORDER.parameters,
    }


def test_names_for_endpoints_that_take_plain_ones() -> None:
    """Each has a plain name of its own on the wire, and its own name for the caller."""
    names = ["order.list", "order_list", "order/list", "größe", "x" * 70, "x" * 80]
    tools = [ToolSpec(name, "", {"type": "object"}) for name in names]
    past = Message("assistant", tool_calls=(ToolCall("order.list", "{}", "a"),))
    messages = [*ASKED, past, Message("tool", "[]", tool_call_id="a")]
    with scripted(answer("ok")) as server, model_at(server.url, has_plain_names=True) as model:
        model.complete(messages, tools=tools, tool_choice="order.list", repair_calls=False)
    body = sent(server)[0]
    plain = [tool["function"]["name"] for tool in body["tools"]]
    assert plain[1] == "order_list"
    assert len(set(plain)) == len(names)
    assert all(name.isascii() and len(name) <= 64 and "." not in name for name in plain)
    assert body["tool_choice"]["function"]["name"] == plain[0]
    assert last_words(body, 2)[0]["tool_calls"][0]["function"]["name"] == plain[0]
    calls = calling(*((name, "{}") for name in plain))
    with scripted(calls) as server, model_at(server.url, has_plain_names=True) as model:
        called = model.complete(messages, tools=tools)
    assert [call.name for call in called.tool_calls] == names
