"""``attention`` of a request: what is read of the context, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

PROMPT = [1 + i % 90 for i in range(120)]
BLOCKS = {"mode": "moba", "block_size": 16, "top_k": 2}
TOKENS = {"mode": "tidal", "budget": 16, "layers": [0]}
SLOTS = {"mode": "keepkv", "budget": 0.2, "window": 8, "every": 4}


def written(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    body = {"prompt_token_ids": PROMPT, "temperature": 0, "max_tokens": 8, **fields}
    response = http.post("/generate", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_modes_of_one_server(http: httpx.Client) -> None:
    """The model has no blocks of its own; those of a request share no page with the others."""
    own = written(http, cache_salt="a")
    full = written(http, cache_salt="a", attention={"mode": "full"})
    blocks = written(http, cache_salt="a", attention=BLOCKS)
    again = written(http, cache_salt="a", attention=BLOCKS)
    every = written(http, cache_salt="a", attention={**BLOCKS, "top_k": 8})
    logprobs = [x["choices"][0]["tokens"]["logprobs"] for x in (own, full, blocks, again, every)]
    assert logprobs[0] == logprobs[1]
    assert logprobs[1] != logprobs[2]
    assert logprobs[2] == logprobs[3]
    assert logprobs[4] == pytest.approx(logprobs[1], abs=1e-4)
    cached = [
        x["usage"]["prompt_tokens_details"]["cached_tokens"] for x in (own, full, blocks, again)
    ]
    assert cached == [0, 112, 0, 112]


def test_a_reply_that_chooses_tokens(http: httpx.Client) -> None:
    """Its prompt is read whole, and shares pages with all that are; its reply's pages are its
    own."""
    full = written(http, cache_salt="b", attention={"mode": "full"})
    chosen = written(http, cache_salt="b", attention=TOKENS)
    again = written(http, cache_salt="b", attention=TOKENS)
    every = written(http, cache_salt="b", attention={**TOKENS, "budget": 500})
    logprobs = [x["choices"][0]["tokens"]["logprobs"] for x in (full, chosen, again, every)]
    assert logprobs[1] == logprobs[2]
    assert logprobs[0][0] == pytest.approx(logprobs[1][0], abs=1e-5)  # the prompt's last row
    assert logprobs[0] != logprobs[1]
    assert logprobs[3] == pytest.approx(logprobs[0], abs=1e-5)
    assert chosen["usage"]["prompt_tokens_details"]["cached_tokens"] == 112


def test_a_reply_with_fewer_slots(http: httpx.Client) -> None:
    """Its prompt's pages are everybody's, but for the rows whose queries it needs."""
    full = written(http, cache_salt="c", attention={"mode": "full"})
    merged = written(http, cache_salt="c", attention=SLOTS)
    again = written(http, cache_salt="c", attention=SLOTS)
    every = written(http, cache_salt="c", attention={**SLOTS, "budget": 500})
    logprobs = [x["choices"][0]["tokens"]["logprobs"] for x in (full, merged, again, every)]
    assert logprobs[1] == logprobs[2]
    assert logprobs[0][0] == pytest.approx(logprobs[1][0], abs=1e-5)  # the prompt's last row
    assert logprobs[0] != pytest.approx(logprobs[1], abs=1e-3)
    assert logprobs[3] == pytest.approx(logprobs[0], abs=1e-5)
    assert merged["usage"]["prompt_tokens_details"]["cached_tokens"] == 112


def test_drafts_say_what_full_attention_says(http: httpx.Client, ai: openai.OpenAI) -> None:
    full = written(http, max_tokens=24, cache_salt="d", attention={"mode": "full"})
    drafts = written(http, max_tokens=24, cache_salt="d", attention={**TOKENS, "drafts": 3})
    tokens = [x["choices"][0]["tokens"]["token_ids"] for x in (full, drafts)]
    assert tokens[0] == tokens[1]
    details = [x["usage"]["completion_tokens_details"] for x in (full, drafts)]
    assert details[0] == {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
    assert sum(details[1].values()) >= 16
    said = ai.completions.create(
        model=ai.models.list().data[0].id,
        prompt=PROMPT,
        max_tokens=24,
        temperature=0,
        stream=True,
        extra_body={"attention": {**TOKENS, "drafts": 3}},
        stream_options={"include_usage": True},
    )
    *_, last = said
    assert last.usage is not None
    assert last.usage.completion_tokens_details is not None
    assert last.usage.completion_tokens_details.accepted_prediction_tokens is not None


def test_the_official_client_sends_it(ai: openai.OpenAI) -> None:
    model = ai.models.list().data[0].id
    reply = ai.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "hello " * 40}],
        max_tokens=4,
        extra_body={"attention": {**BLOCKS, "sink": True, "share": "group", "full_layers": [-1]}},
    )
    assert reply.usage is not None
    assert reply.usage.completion_tokens >= 1


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ({"mode": "moba"}, "block_size and top_k missing"),
        ({"mode": "moba", "block_size": 24, "top_k": 2}, "not a multiple of the 16 tokens"),
        ({**BLOCKS, "full_layers": [64]}, "full_layers has 64"),
        ({**BLOCKS, "top_k": 0}, "attention"),
        ({**BLOCKS, "top_k": 1, "sink": True}, "take at least 2"),
        ({**BLOCKS, "top_k": 2.0}, "attention"),
        ({**BLOCKS, "block_size": "16"}, "attention"),
        ({**BLOCKS, "block_size": -16}, "attention"),
        ({**BLOCKS, "block_size": None}, "block_size missing"),
        ({**BLOCKS, "block_size": 2**40}, "attention"),
        ({**BLOCKS, "blocks": 1}, "attention"),
        ({**BLOCKS, "top_k": True}, "attention"),
        ({**BLOCKS, "sink": "yes"}, "attention"),
        ({"mode": "sparse"}, "attention"),
        ({"mode": "tidal"}, "attention"),
        ({**TOKENS, "layers": [64]}, "leave 64 out"),
        ({**TOKENS, "layers": []}, "attention"),
        ({**TOKENS, "budget": 0}, "attention"),
        ({**TOKENS, "sinks": 16}, "raise it, or lower sinks or recent"),
        ({**TOKENS, "share": "row"}, "attention"),
        ({**TOKENS, "correct_every": 0}, "attention"),
        ({**TOKENS, "top_k": 2}, "attention"),
        ({**TOKENS, "drafts": 3, "correct_every": 4}, "leave correct_every out"),
        ({"mode": "keepkv"}, "attention"),
        ({**SLOTS, "budget": 3}, "attention"),
        ({**SLOTS, "budget": 1.5}, "attention"),
        ({**SLOTS, "budget": True}, "attention"),
        ({**SLOTS, "merge": "mean"}, "attention"),
        ({**SLOTS, "likeness": 2}, "attention"),
        ({**SLOTS, "window": 0}, "attention"),
        ({**SLOTS, "reading": SLOTS}, "attention"),
        ({**SLOTS, "reading": {**TOKENS, "layers": [64]}}, "leave 64 out"),
        ({**SLOTS, "reading": {**TOKENS, "drafts": 3}}, "leave it out"),
        ("moba", "attention"),
        ([], "attention"),
    ],
)
def test_what_cannot_be_is_a_bad_request(http: httpx.Client, attention: Any, message: str) -> None:
    body = {"prompt_token_ids": PROMPT, "max_tokens": 1, "attention": attention}
    response = http.post("/generate", json=body)
    assert response.status_code == 400, response.text
    assert message in response.json()["error"]["message"]


def test_vectors_of_texts_read_as_they_are_asked_to(http: httpx.Client) -> None:
    def vector(**fields: Any) -> list[float]:
        response = http.post("/v1/embeddings", json={"input": [PROMPT], **fields})
        assert response.status_code == 200, response.text
        return response.json()["data"][0]["embedding"]

    assert vector(attention={"mode": "full"}) == vector()
    assert vector(attention=BLOCKS) != vector()
    body = {"input": [PROMPT], "attention": TOKENS}
    response = http.post("/v1/embeddings", json=body)
    assert response.status_code == 400, response.text
    assert "an embedding has none" in response.json()["error"]["message"]


def test_sizes_that_no_context_has_are_full_attention(http: httpx.Client) -> None:
    """And cost no more than that."""
    full = written(http)["choices"][0]["tokens"]["logprobs"]
    for sizes in ({"block_size": 2**20, "top_k": 1}, {"block_size": 16, "top_k": 2**20}):
        found = written(http, attention={"mode": "moba", **sizes})
        assert found["choices"][0]["tokens"]["logprobs"] == full
    for mode in (TOKENS, SLOTS):
        found = written(http, attention={**mode, "budget": 2**20})
        assert found["choices"][0]["tokens"]["logprobs"] == full
