"""``attention`` of a request: what is read of the context, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

PROMPT = [1 + i % 90 for i in range(120)]
BLOCKS = {"mode": "moba", "block_size": 16, "top_k": 2}


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
        ({**BLOCKS, "block_size": 2**40}, "attention"),
        ({**BLOCKS, "blocks": 1}, "attention"),
        ({**BLOCKS, "top_k": True}, "attention"),
        ({**BLOCKS, "sink": "yes"}, "attention"),
        ({"mode": "sparse"}, "attention"),
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


def test_sizes_that_no_context_has_are_full_attention(http: httpx.Client) -> None:
    """And cost no more than that."""
    full = written(http)["choices"][0]["tokens"]["logprobs"]
    for sizes in ({"block_size": 2**20, "top_k": 1}, {"block_size": 16, "top_k": 2**20}):
        found = written(http, attention={"mode": "moba", **sizes})
        assert found["choices"][0]["tokens"]["logprobs"] == full
