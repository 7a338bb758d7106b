"""JSON of a schema out of any endpoint: forced, found in prose, or asked for again."""

from __future__ import annotations

from typing import Any

import pytest

from selenite.agent.models.endpoint import JsonMode
from selenite.agent.models.failure import ModelError, Reason
from selenite.agent.models.structured import object_in
from selenite.errors import ConfigError
from tests.agent.models.stub import (
    ASKED,
    SCHEMA,
    answer,
    calling,
    dumps,
    last_words,
    model_at,
    scripted,
    sent,
)
from tests.fixtures.scripted_server import json_answer

GOOD = '{"score": 4}'
WRONG = {
    "no json": ("I think four.", Reason.NOT_JSON, "no JSON object"),
    "python": ("{'score': 4}", Reason.NOT_JSON, "no JSON object"),
    "broken": ('{"score": 4,}', Reason.NOT_JSON, "broken"),
    "cut": ('{"score": 4, "why": {"score": 3}', Reason.NOT_JSON, "broken"),
    "nan": ('{"score": NaN}', Reason.NOT_JSON, "NaN"),
    "a list": ("[4]", Reason.NOT_JSON, "no JSON object"),
    "half a pair": (r'{"score": 4, "\ud800": 1}', Reason.NOT_OF_SCHEMA, "Additional"),
    "half an escape": (r'{"score": "\ud800"}', Reason.NOT_OF_SCHEMA, "not of type"),
    "above": ('{"score": 6}', Reason.NOT_OF_SCHEMA, r"\$\.score: 6 is greater"),
    "missing": ("{}", Reason.NOT_OF_SCHEMA, "'score' is a required"),
    "unknown": ('{"score": 1, "größe": 1}', Reason.NOT_OF_SCHEMA, "größe"),
    "deep": ('{"a":' * 100_000, Reason.NOT_JSON, "too deeply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reply_is_told_and_asked_again(name: str) -> None:
    wrong, reason, detail = WRONG[name]
    with (
        scripted(answer(wrong), answer(GOOD), answer(wrong)) as server,
        model_at(server.url) as model,
    ):
        assert model.json(ASKED, SCHEMA, seed=3) == {"score": 4}
        totals = model.ledger.totals()
        with pytest.raises(ModelError, match=detail) as failed:
            model.json(ASKED, SCHEMA)
        model.ledger.totals().check_integrity()
    first, second, *more = sent(server)
    assert len(more) == 3
    assert second["messages"][:-2] == first["messages"]
    said, told = last_words(second, 2)
    assert said == {"role": "assistant", "content": wrong}
    assert dumps(SCHEMA) in told["content"]
    assert second["response_format"] == first["response_format"]
    assert totals.faults == {reason.value: 1}
    assert (totals.succeeded, totals.counts["repairs"], totals.counts["retries"]) == (1, 1, 0)
    assert (totals.counts["tokens_in"], totals.counts["tokens_out"]) == (200, 40)
    assert failed.value.reason is reason
    assert failed.value.completion is not None
    assert failed.value.completion.text == wrong


def test_a_repair_may_need_retries() -> None:
    faults = (answer("no"), json_answer({}, 500), answer("{}"), json_answer({}, 429), answer(GOOD))
    with scripted(*faults) as server, model_at(server.url) as model:
        assert model.json(ASKED, SCHEMA) == {"score": 4}
        totals = model.ledger.totals()
    assert totals.faults == {
        "not_json": 1,
        "server_error": 1,
        "not_of_schema": 1,
        "rate_limited": 1,
    }
    assert (totals.counts["requests"], totals.counts["repairs"], totals.counts["retries"]) == (
        5,
        2,
        2,
    )
    totals.check_integrity()


def test_a_reply_that_is_cut() -> None:
    """It is good if it is whole all the same; else a shorter one is asked for."""
    with (
        scripted(answer(GOOD + " because", "length")) as server,
        model_at(server.url) as model,
    ):
        assert model.json(ASKED, SCHEMA) == {"score": 4}
    with (
        scripted(answer('{"score"', "length"), answer(GOOD)) as server,
        model_at(server.url) as model,
    ):
        assert model.json(ASKED, SCHEMA, max_tokens=3) == {"score": 4}
        assert "shorter" in last_words(sent(server)[1])[0]["content"]
    with (
        scripted(answer('{"score"', "length")) as server,
        model_at(server.url, repairs=0) as model,
        pytest.raises(ModelError) as failed,
    ):
        model.json(ASKED, SCHEMA, max_tokens=3)
    assert failed.value.reason is Reason.TRUNCATED


def test_a_tool_call_in_the_place_of_json() -> None:
    with (
        scripted(calling(("f", "{}")), answer(GOOD)) as server,
        model_at(server.url) as model,
    ):
        assert model.json(ASKED, SCHEMA) == {"score": 4}
        assert last_words(sent(server)[1], 2)[0]["content"] == "(no text)"


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        (
            JsonMode.SCHEMA,
            {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA}},
        ),
        (JsonMode.OBJECT, {"type": "json_object"}),
        (JsonMode.PROMPT, None),
        ("prompt", None),
    ],
)
def test_how_an_endpoint_is_told(mode: JsonMode, format: Any) -> None:
    with scripted(answer(GOOD)) as server, model_at(server.url, json_mode=mode) as model:
        model.json(ASKED, SCHEMA)
        model.json(ASKED[1:], SCHEMA)
    for body in sent(server):
        assert body.get("response_format") == format
        assert body["messages"][-1]["content"] == ASKED[1].content
        first = body["messages"][0]
        is_told = first["role"] == "system" and dumps(SCHEMA) in first["content"]
        assert is_told == (mode != JsonMode.SCHEMA)
    assert sent(server)[0]["messages"][0]["content"].startswith("Be brief.")


def test_an_endpoint_that_cannot_be_told_so() -> None:
    """The failure names the setting that helps."""
    refusal = json_answer({"error": {"message": "unknown field"}}, 400)
    with scripted(refusal) as server, model_at(server.url) as model:
        with pytest.raises(
            ModelError, match=r"unknown field; .* set json_mode of Endpoint to prompt"
        ):
            model.json(ASKED, SCHEMA)
        with pytest.raises(ModelError, match=r"unknown field$"):
            model.complete(ASKED)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array"}, "schema.type='array': must be 'object'"),
        ({}, "schema.type=None"),
        ({"type": "object", "properties": {"a": {"type": "strin"}}}, "no JSON schema"),
        ({"type": "object", "enum": [float("nan")]}, "must be JSON"),
        ({"type": "object", "enum": [{1}]}, "must be JSON"),
    ],
)
def test_what_is_no_schema(schema: dict[str, Any], message: str) -> None:
    with model_at("http://127.0.0.1:9") as model, pytest.raises(ConfigError, match=message):
        model.json(ASKED, schema)


def test_a_schema_that_cannot_be_applied_is_no_fault_of_the_model() -> None:
    schema = {"type": "object", "properties": {"score": {"$ref": "http://nowhere.example/s"}}}
    with scripted(answer(GOOD)) as server, model_at(server.url) as model:
        with pytest.raises(ModelError) as failed:
            model.json(ASKED, schema)
        assert len(server.requests) == 1
    assert failed.value.reason is Reason.UNCHECKABLE


def test_text_that_cannot_be_written_down() -> None:
    schema = {"type": "object", "properties": {"why": {"type": "string"}}}
    with (
        scripted(answer(r'{"why": "\ud83d"}'), answer(r'{"why": "\ud83d\ude00"}')) as server,
        model_at(server.url) as model,
    ):
        assert model.json(ASKED, schema) == {"why": "😀"}
        assert model.ledger.totals().faults == {"not_json": 1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('Here:\n```\n{"a": "```"}\n```\nDone.', '{"a": "```"}'),
        ('Use {name} as in C: { int x; }. {"a": {"b": 1}} That is all {x}.', '{"a": {"b": 1}}'),
        ('First {"a": 1}, then rather {"a": 2}.', '{"a": 2}'),
        ('<think>Maybe {"a": or {"a": 0}</think>{"a": 1}', '{"a": 1}'),
        (' <think>x</think>\n{"a": "<think>"}', '{"a": "<think>"}'),
        ('{"a": "</think>"}', '{"a": "</think>"}'),
        ("{ }", "{ }"),
        ('{"größe": "你\\u2028🙂"}', '{"größe": "你\\u2028🙂"}'),
        ('[{"a": 1}]', '{"a": 1}'),
    ],
)
def test_the_object_in_a_text(text: str, found: str) -> None:
    assert object_in(text) == found


@pytest.mark.parametrize(
    "text",
    ["", "none", "{", "{name}", '{"a": 1', '{"a": {"b": 1}', '{"a": 1} {"b": ', '<think>{"a": 1}'],
)
def test_no_object_in_a_text(text: str) -> None:
    """A whole object inside a broken one is never taken for the answer."""
    with pytest.raises(ValueError, match="JSON object"):
        object_in(text)
