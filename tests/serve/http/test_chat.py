"""Chat as OpenAI's own client sees it, from a real process."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from selenite.chat.k2_calls import SECTION_BEGIN
from selenite.chat.tokenizer import Tokenizer

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": "A tool.", "parameters": SCHEMA},
    }
    for name in ("weather", "news.of-town")
]
HELLO = [{"role": "user", "content": "Hello, fox."}]


def ask(ai: openai.OpenAI, **fields: Any) -> ChatCompletion:
    known = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "seed": 3}
    return ai.chat.completions.create(**(known | fields))


def stream(ai: openai.OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    known = {"model": "tiny", "messages": HELLO, "max_tokens": 24, "seed": 3}
    return list(ai.chat.completions.create(**(known | fields), stream=True))


def added_up(chunks: list[ChatCompletionChunk]) -> list[dict[str, Any]]:
    """What a client makes of a stream: by choice, what ``whole`` makes of one answer."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for piece in chunk.choices:
            empty = {"content": "", "calls": [], "logprobs": [], "finish": None, "malformed": []}
            choice = choices.setdefault(piece.index, empty)
            choice["content"] += piece.delta.content or ""
            for call in piece.delta.tool_calls or []:
                if call.id:
                    choice["calls"].append([call.id, call.function.name, ""])
                choice["calls"][call.index][2] += call.function.arguments or ""
            choice["malformed"] += getattr(piece.delta, "malformed", None) or []
            choice["logprobs"] += piece.logprobs.content if piece.logprobs else []
            choice["finish"] = piece.finish_reason or choice["finish"]
    for choice in choices.values():
        void = {part["index"] for part in choice["malformed"]}
        calls = enumerate(choice["calls"])
        choice["calls"] = [call for index, call in calls if index not in void]
    return [choices[index] for index in sorted(choices)]


def whole(completion: ChatCompletion) -> list[dict[str, Any]]:
    return [
        {
            "content": choice.message.content or "",
            "calls": [
                [call.id, call.function.name, call.function.arguments]
                for call in choice.message.tool_calls or []
            ],
            "logprobs": choice.logprobs.content if choice.logprobs else [],
            "finish": choice.finish_reason,
            "malformed": choice.message.model_extra["malformed"] or [],
        }
        for choice in completion.choices
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"logprobs": True, "top_logprobs": 3, "n": 3},
        {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200, "n": 2},
        {"tools": TOOLS, "tool_choice": "required", "max_tokens": 11},
        {"tools": TOOLS, "tool_choice": "none", "temperature": 0},
        {"stop": ["e", "on"], "logprobs": True, "max_tokens": 100},
        {"response_format": {"type": "json_object"}, "max_tokens": 60},
        {"temperature": 1.5, "top_p": 0.9, "extra_body": {"top_k": 20, "min_p": 0.01}},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
def test_a_stream_adds_up_to_the_answer_in_one_piece(
    ai: openai.OpenAI, fields: dict[str, Any]
) -> None:
    assert added_up(stream(ai, **fields)) == whole(ask(ai, **fields))


def test_usage(ai: openai.OpenAI) -> None:
    chunks = stream(ai, stream_options={"include_usage": True})
    assert not chunks[-1].choices
    assert all(chunk.choices for chunk in chunks[:-1])
    assert all(chunk.model_dump(exclude_unset=True)["usage"] is None for chunk in chunks[:-1])
    usage = chunks[-1].usage
    assert (usage.completion_tokens, usage.total_tokens) == (24, usage.prompt_tokens + 24)
    again = ask(ai).usage
    assert again.prompt_tokens == usage.prompt_tokens
    assert again.prompt_tokens_details.cached_tokens >= 16
    for unasked in (stream(ai), stream(ai, stream_options={})):
        assert not any("usage" in chunk.model_fields_set for chunk in unasked)


def test_usage_in_every_chunk(ai: openai.OpenAI) -> None:
    """vLLM's; beside OpenAI's last chunk, or without it. It grows with the tokens."""
    for last in (False, True):
        wanted = {"continuous_usage_stats": True, "include_usage": last}
        further = {"return_token_ids": True, "ignore_eos": True}
        chunks = stream(ai, stream_options=wanted, extra_body=further, n=2)
        said = [chunk.usage.completion_tokens for chunk in chunks]
        assert said == sorted(said)
        assert said[-1] == 48
        assert bool(chunks[-1].choices) is not last
        given = 0
        for chunk in chunks:
            for choice in chunk.choices:
                given += len(choice.model_extra.get("token_ids") or ())
            usage = chunk.usage
            assert given <= usage.completion_tokens
            assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
        assert given == 48


def test_samples_of_one_prompt_differ_and_share_it(ai: openai.OpenAI) -> None:
    long = [{"role": "user", "content": "Hello " * 30}]
    answer = ask(ai, messages=long, n=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in answer.choices}) == 4
    assert 24 < answer.usage.completion_tokens <= 4 * 24
    alone = ask(ai, messages=long)
    assert alone.choices[0].message.content == answer.choices[0].message.content


def test_logprobs_say_what_the_bytes_of_each_token_are(ai: openai.OpenAI) -> None:
    choice = ask(ai, logprobs=True, top_logprobs=2, max_tokens=40).choices[0]
    spelled = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
    assert spelled.decode(errors="replace").startswith(choice.message.content[:5])
    for token in choice.logprobs.content:
        first, second = token.top_logprobs
        assert first.logprob >= second.logprob
        assert first.logprob >= token.logprob


# --- tools


def check_call(call: Any, names: set[str]) -> None:
    assert call.function.name in names
    assert call.id.startswith(f"functions.{call.function.name}:")
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)


@pytest.mark.parametrize("name", ["none", "auto", "required"])
def test_a_tool_has_no_name_that_tool_choice_has_a_meaning_for(
    ai: openai.OpenAI, name: str
) -> None:
    function = {"name": name, "parameters": SCHEMA}
    flat = [{"type": "function", "strict": True, **function}]
    for attempt in (
        lambda: ask(ai, tools=[*TOOLS, {"type": "function", "function": function}]),
        lambda: ai.responses.create(model="tiny", input="Hi", tools=flat),
    ):
        with pytest.raises(openai.BadRequestError, match=f"'{name}' is a word of") as caught:
            attempt()
        assert caught.value.param == "tools"


@pytest.mark.parametrize("seed", range(4))
def test_the_named_tool_is_called(ai: openai.OpenAI, seed: int) -> None:
    named = {"type": "function", "function": {"name": "news.of-town"}}
    choice = ask(ai, tools=TOOLS, tool_choice=named, max_tokens=200, seed=seed).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls
    check_call(call, {"news.of-town"})


def test_calls_are_valid_where_the_model_chooses_to_call(ai: openai.OpenAI, model: Any) -> None:
    token = Tokenizer.load(model).special_id(SECTION_BEGIN)
    choice = ask(
        ai,
        tools=TOOLS,
        logit_bias={str(token): 100},
        max_tokens=200,
        parallel_tool_calls=False,
    ).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    check_call(call, {"weather", "news.of-town"})


def test_many_streams_at_once_are_those_of_each_alone(ai: openai.OpenAI) -> None:
    """Calls whose pieces come between those of others: none is empty, mixed up or cut."""

    def one(seed: int) -> list[dict[str, Any]]:
        fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
        return added_up(stream(ai, **fields, max_tokens=60, seed=seed, logprobs=True))

    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(one, range(10)))
    assert together == [one(seed) for seed in range(10)]
    for choice in (choices[0] for choices in together):
        if choice["finish"] == "tool_calls":
            jsonschema.validate(json.loads(choice["calls"][0][2]), SCHEMA)


def test_none_is_no_call_however_much_the_model_wants_one(ai: openai.OpenAI, model: Any) -> None:
    bias = {str(Tokenizer.load(model).special_id(SECTION_BEGIN)): 100}
    for fields in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = ask(ai, logit_bias=bias, **fields).choices[0]
        assert choice.finish_reason == "length"
        assert choice.message.tool_calls is None


def test_a_call_that_is_cut_short_is_no_call(ai: openai.OpenAI) -> None:
    for chunks in (False, True):
        fields = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 11}
        choice = (added_up(stream(ai, **fields)) if chunks else whole(ask(ai, **fields)))[0]
        assert choice["finish"] == "length"
        assert not choice["calls"]
        assert choice["malformed"][0]["reason"] == "truncated"


def test_calls_may_be_written_freely(ai: openai.OpenAI, model: Any) -> None:
    """The model is drawn to the opener; what follows is its own, and no call."""
    bias = {str(Tokenizer.load(model).special_id(SECTION_BEGIN)): 100}
    fields: dict[str, Any] = {"tools": TOOLS, "logit_bias": bias}
    free = whole(ask(ai, extra_body={"constrain_calls": False}, **fields))[0]
    assert free["malformed"]
    held = whole(ask(ai, **fields, max_tokens=200))[0]
    assert not held["malformed"] or held["malformed"][0]["reason"] == "truncated"
    with pytest.raises(openai.BadRequestError, match="set tool_choice to auto"):
        ask(ai, tools=TOOLS, tool_choice="required", extra_body={"constrain_calls": False})


def test_a_conversation_goes_on_in_the_tokens_that_were_sampled(
    ai: openai.OpenAI, model: Any
) -> None:
    """The sampled ids are no tokeniser's, yet the next turn finds them in the prefix cache."""
    messages: list[Any] = [{"role": "user", "content": "A long beginning. " * 3}]
    known = 0
    for turn in range(4):
        named = {"type": "function", "function": {"name": "weather"}}
        answer = ask(
            ai,
            messages=messages,
            tools=TOOLS,
            tool_choice=named if turn % 2 else "none",
            max_tokens=300 if turn % 2 else 60,
            seed=turn,
            # The random model would end, or write special tokens.
            logit_bias={str(id): -100 for id in Tokenizer.load(model).special_tokens.values()}
            if turn % 2 == 0
            else None,
        )
        usage = answer.usage
        assert usage.prompt_tokens_details.cached_tokens >= known // 16 * 16
        known = usage.total_tokens - 1  # the last token's entries are not computed
        message = answer.choices[0].message
        messages.append(message.model_dump(exclude_none=True, include={"role", "content"}))
        if message.tool_calls:
            call = message.tool_calls[0]
            messages[-1]["tool_calls"] = [call.model_dump(include={"id", "type", "function"})]
            messages.append({"role": "tool", "tool_call_id": call.id, "content": "Rain."})
        messages.append({"role": "user", "content": "Go on."})


# --- structured output


def test_json_schema(ai: openai.OpenAI) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}}
    for seed in range(3):
        choice = ask(ai, response_format=wanted, max_tokens=200, seed=seed).choices[0]
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)


def test_parse_helper(ai: openai.OpenAI) -> None:
    from pydantic import BaseModel, Field

    class Trip(BaseModel):
        days: int = Field(ge=1, le=7)

    answer = ai.chat.completions.parse(
        model="tiny", messages=HELLO, response_format=Trip, max_tokens=60, seed=1
    )
    assert 1 <= answer.choices[0].message.parsed.days <= 7


def test_regex_and_choice(ai: openai.OpenAI) -> None:
    for wanted, allowed in (
        ({"regex": "(ab|cd){2}"}, {"abab", "abcd", "cdab", "cdcd"}),
        ({"choice": ["yes", "no"]}, {"yes", "no"}),
    ):
        answer = ask(ai, extra_body={"structured_outputs": wanted})
        assert answer.choices[0].message.content in allowed


def test_a_grammar_that_cannot_be_compiled_fails_alone(ai: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="cannot be compiled"):
        ask(ai, extra_body={"structured_outputs": {"regex": "(a"}})
    assert ask(ai).choices[0].finish_reason == "length"


# --- stopping


def test_stop_strings_across_tokens(ai: openai.OpenAI, http: httpx.Client) -> None:
    text = ask(ai, max_tokens=80).choices[0].message.content
    for start in (0, 5, 17, 31):
        stop = text[start : start + 5]
        place = text.index(stop)
        for choice in (
            whole(ask(ai, max_tokens=80, stop=stop))[0],
            added_up(stream(ai, max_tokens=80, stop=[stop, "never there"]))[0],
        ):
            assert choice["content"] == text[:place]
            assert choice["finish"] == "stop"
    body = {"messages": HELLO, "max_tokens": 80, "seed": 3, "stop": stop}
    body["include_stop_str_in_output"] = True
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["message"]["content"] == text[: place + 5]
    assert choice["stop_reason"] == stop


def test_stop_token_ids(http: httpx.Client) -> None:
    body = {"messages": HELLO, "max_tokens": 30, "seed": 3, "return_token_ids": True}
    first = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    ids = first["token_ids"]
    assert len(ids) == 30
    body["stop_token_ids"] = [ids[10]]
    cut = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    count = ids.index(ids[10]) + 1
    assert cut["token_ids"] == ids[:count]
    assert cut["stop_reason"] == ids[10]
    assert first["message"]["content"].startswith(cut["message"]["content"])
    body["min_tokens"] = 25
    assert len(http.post("/v1/chat/completions", json=body).json()["choices"][0]["token_ids"]) >= 25
