"""Completions, responses, embeddings, ids, and what the server says of itself."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch

from selenite.chat.tokenizer import Tokenizer
from selenite.model.decode import decode
from selenite.model.hf_adapter import load_pretrained
from selenite.types import SamplingParams
from tests.serve.http.test_chat import HELLO, SCHEMA

FUNCTION = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}


# --- completions


def test_prompts_in_every_shape(ai: openai.OpenAI, model: Any) -> None:
    tokenizer = Tokenizer.load(model)
    ids = [tokenizer.bos_id, *tokenizer.encode("The quick")]

    def texts(prompt: Any, **fields: Any) -> list[str]:
        known = {"model": "tiny", "max_tokens": 8, "seed": 1}
        answer = ai.completions.create(prompt=prompt, **(known | fields))
        return [choice.text for choice in answer.choices]

    (text,) = texts("The quick")
    assert texts(ids) == [text]
    assert texts(["The quick", "lazy"])[0] == text
    assert texts([ids, ids]) == [text, text]
    several = texts(["The quick", "lazy"], n=2)
    assert len(several) == 4
    assert several[0] == text
    assert texts("The quick", echo=True) == ["The quick" + text]


def test_a_streamed_completion_adds_up(ai: openai.OpenAI) -> None:
    fields: dict[str, Any] = {
        "model": "tiny",
        "prompt": ["The quick", "dog"],
        "max_tokens": 12,
        "seed": 1,
        "echo": True,
        "logprobs": 2,
        "n": 2,
    }
    whole = ai.completions.create(**fields)
    pieces: dict[int, list[Any]] = {}
    for chunk in ai.completions.create(**fields, stream=True):
        for choice in chunk.choices:
            pieces.setdefault(choice.index, []).append(choice)
    for choice in whole.choices:
        own = pieces[choice.index]
        assert "".join(piece.text for piece in own) == choice.text
        assert own[-1].finish_reason == choice.finish_reason == "length"
        scored = [piece.logprobs for piece in own if piece.logprobs]
        for field in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            added = [entry for part in scored for entry in getattr(part, field)]
            assert added == getattr(choice.logprobs, field)
        assert choice.logprobs.token_logprobs[0] is None
        assert all(value < 0 for value in choice.logprobs.token_logprobs[1:])


def test_usage_of_a_streamed_completion(ai: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "prompt": "The quick", "max_tokens": 12, "seed": 1}
    whole = ai.completions.create(**fields).usage

    def usages(**options: bool) -> list[Any]:
        chunks = list(ai.completions.create(**fields, stream=True, stream_options=options))
        assert bool(chunks[-1].choices) is not options.get("include_usage", False)
        return [chunk.model_dump(exclude_unset=True).get("usage", "none") for chunk in chunks]

    *others, last = usages(include_usage=True)
    assert others
    assert set(others) == {None}
    assert last["completion_tokens"] == whole.completion_tokens == 12
    assert set(usages()) == {"none"}
    for with_last in (False, True):
        said = usages(continuous_usage_stats=True, include_usage=with_last)
        written = [usage["completion_tokens"] for usage in said]
        assert written == sorted(written)
        assert written[0] < 12
        assert said[-1]["total_tokens"] == whole.total_tokens


def test_a_prompt_is_scored_without_writing(ai: openai.OpenAI) -> None:
    answer = ai.completions.create(
        model="tiny", prompt="The quick brown", max_tokens=0, echo=True, logprobs=0
    )
    assert answer.choices[0].text == "The quick brown"
    assert answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.tokens) == answer.usage.prompt_tokens


# --- token ids


def test_generate_gives_the_decoders_tokens(http: httpx.Client, model: Any) -> None:
    body = {"prompt_token_ids": [5, 6, 7, 8], "max_tokens": 20, "seed": 9, "prompt_logprobs": 0}
    answer = http.post("/generate", json=body).json()
    params = SamplingParams(max_tokens=20, seed=9)
    (expected,) = decode(load_pretrained(model), [[5, 6, 7, 8]], [params])
    tokens = answer["choices"][0]["tokens"]
    assert tokens["token_ids"] == expected.token_ids
    assert tokens["logprobs"] == pytest.approx(expected.logprobs, abs=1e-4)
    assert tokens["sampled_logprobs"] == pytest.approx(expected.logprobs, abs=1e-4)
    assert tokens["weight_versions"] == [0] * 20
    assert answer["prompt"]["token_ids"] == [6, 7, 8]
    streamed: list[int] = []
    with http.stream("POST", "/generate", json=body | {"stream": True}) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    streamed += choice["tokens"]["token_ids"]
    assert streamed == expected.token_ids


def test_tokenize_and_back(http: httpx.Client) -> None:
    text = "def größe(x): 你好 🙂"
    ids = http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert ids["count"] == len(ids["tokens"])
    assert http.post("/detokenize", json={"tokens": ids["tokens"]}).json()["prompt"] == text
    chat = http.post("/tokenize", json={"messages": HELLO}).json()
    answer = http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 1}).json()
    assert answer["usage"]["prompt_tokens"] == chat["count"]


def test_embeddings(ai: openai.OpenAI, model: Any) -> None:
    texts = ["The quick brown fox", "a lazy dog"]
    answer = ai.embeddings.create(model="tiny", input=texts)  # the client asks for base64
    floats = ai.embeddings.create(model="tiny", input=texts, encoding_format="float")
    first = np.array(answer.data[0].embedding)
    assert math.isclose(np.linalg.norm(first), 1, rel_tol=1e-5)
    assert np.allclose(first, floats.data[0].embedding, atol=1e-6)
    mean = ai.embeddings.create(model="tiny", input=texts, extra_body={"pooling": "mean"})
    assert not np.allclose(first, mean.data[0].embedding, atol=1e-2)
    ids = [3, 4, 5]
    from selenite.ops.attention_context import packed_context

    with torch.no_grad():
        context = packed_context([3])
        hidden = load_pretrained(model)(torch.tensor(ids), context.positions_T, context).hidden_TD
    wanted = torch.nn.functional.normalize(hidden[-1], dim=0)
    got = ai.embeddings.create(model="tiny", input=ids, encoding_format="float").data[0].embedding
    assert np.allclose(got, wanted.numpy(), atol=1e-5)


# --- responses


def test_responses_text(ai: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "input": "Hello, fox.", "max_output_tokens": 20}
    fields["extra_body"] = {"seed": 3}
    answer = ai.responses.create(**fields)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 20
    chat = ai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=3)
    assert answer.output_text == chat.choices[0].message.content
    text = ""
    numbers = []
    with ai.responses.stream(**fields) as events:
        for event in events:
            numbers.append(event.sequence_number)
            text += event.delta if event.type == "response.output_text.delta" else ""
    assert event.type == "response.incomplete"
    assert text == answer.output_text == event.response.output[0].content[0].text
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("kind", ["special", "stop"])
def test_responses_logprobs_are_of_the_tokens_of_the_text(
    ai: openai.OpenAI, model: Any, kind: str
) -> None:
    """As in chat, but for tokens that are no text: between, behind, or in a stop string."""
    tokenizer = Tokenizer.load(model)
    further: dict[str, Any] = {"seed": 3, "ignore_eos": True}
    if kind == "special":
        further["logit_bias"] = {str(id): 4 for id in tokenizer.special_tokens.values()}
    fields: dict[str, Any] = {"model": "tiny", "input": "Hello, fox.", "max_output_tokens": 60}
    fields |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    if kind == "stop":
        text = ai.responses.create(**fields, extra_body=further).output_text
        further["stop"] = [text[20:24]]
    answer = ai.responses.create(**fields, extra_body=further)
    parts = [item.content[0] for item in answer.output]
    whole = [entry for part in parts for entry in part.logprobs]
    assert answer.top_logprobs == 2
    assert all(len(entry.top_logprobs) == 2 for entry in whole)
    spelled = b"".join(bytes(entry.bytes) for entry in whole).decode(errors="replace")
    assert spelled.startswith(answer.output_text)
    assert len(spelled) <= len(answer.output_text) + 20 * (kind == "stop")
    chat = ai.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=60,
        logprobs=True,
        top_logprobs=2,
        extra_body=further,
    )
    tokens = chat.choices[0].logprobs.content
    written = [t for t in tokens if t.token not in tokenizer.special_tokens][: len(whole)]
    assert [entry.model_dump() for entry in whole] == [t.model_dump() for t in written]
    assert len(written) < len(tokens)
    # The same in a stream: in its pieces, at the end of each text, and in the last event.
    pieces: list[Any] = []
    ends: list[Any] = []
    for event in ai.responses.create(**fields, stream=True, extra_body=further):
        if event.type == "response.output_text.delta":
            pieces += event.logprobs
        if event.type == "response.output_text.done":
            ends += event.logprobs
    assert [entry.to_dict() for entry in pieces] == [entry.to_dict() for entry in whole]
    assert [entry.to_dict() for entry in ends] == [entry.to_dict() for entry in whole]
    assert [item.content[0] for item in event.response.output] == parts


def test_responses_have_no_logprobs_that_were_not_asked_for(ai: openai.OpenAI) -> None:
    fields: dict[str, Any] = {"model": "tiny", "input": "Hello, fox.", "max_output_tokens": 4}
    fields["extra_body"] = {"ignore_eos": True}  # else there may be no text
    answer = ai.responses.create(**fields, include=["reasoning.encrypted_content"])
    assert answer.output[0].content[0].logprobs == []
    with pytest.raises(openai.BadRequestError, match="set include") as caught:
        ai.responses.create(**fields, top_logprobs=2)
    assert caught.value.param == "top_logprobs"
    answer = ai.responses.create(**fields, include=["message.output_text.logprobs"])
    (first, *_) = answer.output[0].content[0].logprobs
    assert first.logprob < 0
    assert first.top_logprobs == []


def test_responses_tools_keep_the_models_ids(ai: openai.OpenAI) -> None:
    """The next turn's prompt is what the model wrote: the cache has all of it."""
    items: list[Any] = [{"role": "user", "content": "The weather, please. " * 4}]
    fields: dict[str, Any] = {"model": "tiny", "tools": [FUNCTION], "max_output_tokens": 200}
    fields["tool_choice"] = {"type": "function", "name": "weather"}
    answer = ai.responses.create(input=items, **fields, instructions="Be brief.")
    assert answer.status == "completed"
    (call,) = answer.output
    assert call.call_id.startswith("functions.weather:")
    items += [call.model_dump(exclude_none=True)]
    items += [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}]
    again = ai.responses.create(input=items, **fields, instructions="Be brief.")
    known = (answer.usage.total_tokens - 1) // 16 * 16
    assert again.usage.input_tokens_details.cached_tokens >= known
    with ai.responses.stream(input=items, **fields, instructions="Be brief.") as events:
        kinds = [event.type for event in events]
        (streamed,) = events.get_final_response().output
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds
    json.loads(streamed.arguments)


def test_responses_json_schema(ai: openai.OpenAI) -> None:
    wanted = {"format": {"type": "json_schema", "name": "trip", "schema": SCHEMA}}
    answer = ai.responses.create(model="tiny", input="Where?", text=wanted, max_output_tokens=200)
    assert set(json.loads(answer.output_text)) == {"city", "days"}


# --- the server itself


def test_models_and_version(ai: openai.OpenAI, http: httpx.Client) -> None:
    (entry,) = ai.models.list().data
    assert entry.id == "tiny"
    assert ai.models.retrieve("tiny") == entry
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("large")
    assert entry.model_extra["max_model_len"] == 4096
    assert http.get("/version").json()["version"]


def test_metrics_count(http: httpx.Client) -> None:
    def value(name: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return sum(float(li.split()[-1]) for li in lines if li.startswith(f"vllm:{name}"))

    before = value("generation_tokens_total"), value('request_success_total{finished_reason="le')
    seven = {"messages": HELLO, "max_tokens": 7, "ignore_eos": True}
    http.post("/v1/chat/completions", json=seven)
    after = value("generation_tokens_total"), value('request_success_total{finished_reason="le')
    assert (after[0] - before[0], after[1] - before[1]) == (7, 1)
    counted = value("prompt_tokens_total"), value("request_success_total")
    refused = http.post("/v1/completions", json={"prompt": "ab", "max_tokens": 100_000})
    assert refused.status_code == 400
    assert (value("prompt_tokens_total"), value("request_success_total")) == counted
    text = http.get("/metrics").text
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prompt_tokens_total",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "num_preemptions_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_bucket",
        "request_prefill_time_seconds_bucket",
        "request_decode_time_seconds_bucket",
        "request_prompt_tokens_bucket",
        "request_generation_tokens_bucket",
        "cache_config_info",
    ):
        assert f"vllm:{name}" in text, name
