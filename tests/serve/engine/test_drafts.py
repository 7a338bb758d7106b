"""Rows that choose tokens write drafts, and full attention verifies them: what is said is what full
attention says."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
import torch

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer
from selenite.serve.attention_mode import AnyMode, KeepKvAttention, TidalAttention, read_mode
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import FinishReason, SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

VOCABULARY = 96
FULL = read_mode("full")


def tidal(drafts: int | None = 4, **more: Any) -> TidalAttention:
    settings = {"budget": 24, "layers": [1, 3], "sinks": 1, "drafts": drafts, **more}
    return TidalAttention(mode="tidal", **settings)


@pytest.fixture(scope="module", params=["k2", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    config = k2_config() if request.param == "k2" else llama_config()
    return tiny_model(ModelConfig.model_validate({**config.model_dump(), "num_layers": 5}))


def asked(number: int, mode: AnyMode | None, **more: Any) -> Request:
    """After 30 to 70 tokens; every second one is greedy, the others are drawn, and penalized."""
    rng = random.Random(number)
    prompt = tuple(rng.randrange(VOCABULARY) for _ in range(rng.randrange(30, 70)))
    params = SamplingParams(
        temperature=number % 2,
        seed=number,
        max_tokens=16 + number,
        ignore_eos=True,
        frequency_penalty=0.1 * (number % 3),
    )
    params = dataclasses.replace(params, **more.pop("params", {}))
    return Request(str(number), prompt, params, attention=mode, **more)


def run(engine: Engine, requests: list[Request]) -> list[list[int]]:
    for request in requests:
        engine.add(request)
    said = dict.fromkeys(requests, 0)
    while engine.has_work():
        changed = engine.step()
        engine.check_integrity()
        for request in requests:
            is_more = len(request.completion) > said[request]
            assert is_more == (request in changed) or request.finish_reason is not None
            said[request] = len(request.completion)
    assert all(not request.drafts for request in requests)
    assert all(len(r.tokens) == len(r.prompt) + len(r.completion) for r in requests)
    return [[token.token_id for token in request.completion] for request in requests]


def made(model: Transformer, **changes: Any) -> Engine:
    return Engine(model, EngineConfig(**{"num_pages": 300, "page_size": 4, **changes}))


@pytest.fixture(scope="module")
def expected(model: Transformer) -> list[list[int]]:
    return [run(made(model), [asked(number, FULL)])[0] for number in range(8)]


@pytest.mark.parametrize("drafts", [1, 3, 64])
@pytest.mark.parametrize("max_step_tokens", [512, 9, 1])
def test_what_is_said_is_what_full_attention_says(
    model: Transformer, expected: list[list[int]], drafts: int, max_step_tokens: int
) -> None:
    engine = made(model, max_step_tokens=max_step_tokens)
    requests = [asked(number, tidal(drafts)) for number in range(8)]
    assert run(engine, requests) == expected
    total = sum(request.num_drafted for request in requests)
    assert 0 < sum(request.num_accepted for request in requests) < total
    for request in requests:
        assert request.clean == request.computed == len(request.tokens) - 1


def test_drafts_alone_would_have_said_something_else(
    model: Transformer, expected: list[list[int]]
) -> None:
    found = run(made(model), [asked(number, tidal(None)) for number in range(8)])
    assert sum(a != b for a, b in zip(found, expected, strict=True)) >= 4


def test_beside_others_and_with_pages_that_run_short(
    model: Transformer, expected: list[list[int]]
) -> None:
    modes = (tidal(5), FULL, tidal(2), None)
    engine = made(model, num_pages=44)
    assert run(engine, [asked(n, modes[n % 4]) for n in range(8)]) == expected
    assert engine.scheduler.num_preemptions > 0


def test_what_was_verified_is_published(model: Transformer) -> None:
    """Pages of the reply are found by whoever goes on, and hold what a prompt's would."""
    engine = made(model)
    request = asked(5, tidal(3), params={"max_tokens": 40})
    (said,) = run(engine, [request])
    assert request.num_accepted < request.num_drafted
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    prompt = (*request.prompt, *said, 7, 8)
    later = Request("later", prompt, params, attention=FULL)
    found = run(engine, [later])
    # All that was verified before the last time.
    assert len(request.prompt) + 30 <= later.cached <= len(request.tokens) - 1
    assert found == run(made(model), [Request("new", prompt, params, attention=FULL)])


def test_a_reply_ends_where_it_ends(model: Transformer, expected: list[list[int]]) -> None:
    """By a token, by a text, by its length; drafts behind the end are not said."""
    for number, completion in enumerate(expected[:4]):
        token = completion[9]
        first = completion.index(token)
        by_token = asked(number, tidal(6), params={"stop_token_ids": (token,)})
        heard = list[int]()

        def stops(token_id: int, heard: list[int] = heard, first: int = first) -> bool:
            heard.append(token_id)
            return len(heard) == first + 1

        by_text = asked(number, tidal(6), stops=stops)
        for request in (by_token, by_text):
            assert run(made(model), [request]) == [completion[: first + 1]]
            assert request.finish_reason is FinishReason.STOP
        assert heard == completion[: first + 1]
        for count in (1, 2, 3):
            short = asked(number, tidal(6), params={"max_tokens": count})
            assert run(made(model), [short]) == [completion[:count]]


def test_a_grammar_is_told_what_is_said_alone(model: Transformer) -> None:
    class Even:
        def __init__(self) -> None:
            self.heard = list[int]()

        def allowed_V(self) -> np.ndarray:
            return np.arange(VOCABULARY) % 4 == 2 * (len(self.heard) % 2)

        def accept(self, token_id: int) -> None:
            self.heard.append(token_id)

    found = []
    for mode in (FULL, tidal(3)):
        grammar = Even()
        (said,) = run(made(model), [asked(5, mode, grammar=grammar)])
        assert grammar.heard == said
        found.append(said)
    assert found[0] == found[1]


def test_logprobs_are_full_attentions(model: Transformer) -> None:
    found = []
    for mode in (FULL, tidal(4)):
        request = asked(3, mode, params={"logprobs": 2})
        run(made(model), [request])
        found.append([(token.logprob, token.top[0][1]) for token in request.completion])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_a_draft_that_cannot_be_drawn_ends_the_request_and_says_so(model: Transformer) -> None:
    broken = tiny_model(model.config)
    engine = made(broken)
    request = asked(4, tidal(8), params={"max_tokens": 40})
    engine.add(request)
    while request.drafts < 3:
        engine.step()
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    assert engine.step() == [request]
    assert request.finish_reason is FinishReason.ERROR
    assert not engine.has_work()


def test_asleep_and_with_other_weights_in_the_middle_of_drafts(model: Transformer) -> None:
    engine = made(model)
    request = asked(5, tidal(8), params={"max_tokens": 40})
    engine.add(request)
    for disturb in (
        lambda: (engine.sleep(), engine.wake()),
        lambda: engine.swap_weights(model, 1, "keep"),
        lambda: engine.swap_weights(model, 2, "recompute"),
    ):
        while request.drafts < 3:
            engine.step()
        disturb()
        engine.step()
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    full = asked(5, FULL, params={"max_tokens": 40})
    assert [t.token_id for t in request.completion] == run(made(model), [full])[0]
    engine.add(again := asked(5, tidal(8), params={"max_tokens": 40}))
    while again.drafts < 3:
        engine.step()
    engine.abort(again)
    engine.check_integrity()
    assert len(again.tokens) - again.drafts == len(again.prompt) + len(again.completion)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (tidal(correct_every=4), "leave correct_every out"),
        (KeepKvAttention(mode="keepkv", budget=16, reading=tidal()), "drafts computes entries"),
    ],
)
def test_what_cannot_be_is_named(model: Transformer, mode: AnyMode, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(model).add(asked(0, mode))
