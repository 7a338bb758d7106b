"""Requests of which some read everything and some choose blocks, beside each other in one engine:
each is continued as the plain decoder continues it with a model that always reads so."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.decode import decode
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.serve.attention_mode import read_mode
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

VOCABULARY = 96
FULL, OWN = read_mode("full"), read_mode("moba")
OTHER = read_mode('{"mode": "moba", "block_size": 16, "top_k": 2, "sink": true, "share": "group"}')
MODES = (FULL, OWN, OTHER, None)


@pytest.fixture(scope="module", params=["k2", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    moba = {"block_size": 8, "top_k": 2, "full_layers": [-1]}
    config = k2_config() if request.param == "k2" else llama_config()
    return tiny_model(ModelConfig.model_validate({**config.model_dump(), "moba": moba}))


def workload(count: int, seed: int = 0) -> list[Request]:
    """Prompts of 20 to 90 tokens that share beginnings, each in one of the modes."""
    rng = random.Random(seed)
    base = [rng.randrange(VOCABULARY) for _ in range(70)]
    requests = []
    for index in range(count):
        own = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 20))]
        prompt = (*base[: rng.choice([20, 48, 64, 70])], *own)
        params = SamplingParams(temperature=0, max_tokens=rng.randrange(1, 20))
        requests.append(Request(str(index), prompt, params, attention=MODES[index % len(MODES)]))
    return requests


def expected(model: Transformer, requests: list[Request]) -> list[list[int]]:
    """By the plain decoder with the model's config changed."""
    found: dict[str, list[int]] = {}
    for mode in MODES:
        own = [request for request in requests if request.attention is mode]
        moba = None if mode is FULL else model.config.moba
        if mode is OTHER:
            assert moba is not None
            moba = moba.model_copy(update=OTHER.model_dump(exclude_none=True, exclude={"mode"}))
        changed = Transformer(model.config.model_copy(update={"moba": moba}))
        changed.load_state_dict(model.state_dict())
        texts = decode(changed, [r.prompt for r in own], [r.params for r in own])
        found |= {r.id: text.token_ids for r, text in zip(own, texts, strict=True)}
    return [found[request.id] for request in requests]


@pytest.fixture(scope="module")
def continued(model: Transformer) -> list[list[int]]:
    """Of the workload."""
    return expected(model, workload(8))


def log_probs(model: Transformer, request: Request) -> Tensor:
    """Of all tokens after the first, by a forward pass over the whole text as in training; float32
    ``[L - 1, V]``."""
    moba = None if request.attention is FULL else model.config.moba
    if request.attention is OTHER:
        assert moba is not None
        moba = moba.model_copy(update=OTHER.model_dump(exclude_none=True, exclude={"mode"}))
    tokens_L = torch.tensor([*request.prompt, *(t.token_id for t in request.completion)])
    context = packed_context([len(tokens_L)])
    routing = None if moba is None else model.config.routing(moba)
    with torch.no_grad():
        context = replace(context, routing=(routing,))
        hidden_LD = model(tokens_L, context.positions_T, context).hidden_TD
        return model.logits(hidden_LD[:-1]).log_softmax(-1)


def written(requests: list[Request]) -> list[list[int]]:
    return [[token.token_id for token in request.completion] for request in requests]


def run(engine: Engine, requests: list[Request]) -> None:
    for request in requests:
        engine.add(request)
    while engine.has_work():
        engine.step()
        engine.check_integrity()


def test_modes_are_not_the_same(model: Transformer):
    """Otherwise nothing here would show anything."""
    requests = workload(8)
    for request in requests:
        request.attention = OWN
    by_blocks = expected(model, requests)
    for request in requests:
        request.attention = FULL
    assert sum(a != b for a, b in zip(by_blocks, expected(model, requests), strict=True)) >= 3


@pytest.mark.parametrize(
    ("num_pages", "page_size", "max_step_tokens", "max_running"),
    [(400, 8, 512, 64), (40, 8, 33, 8), (300, 2, 16, 4), (30, 4, 2, 1)],
)
@pytest.mark.parametrize("layout", ["latent", "expanded"])
def test_each_is_the_decoders_whatever_is_beside_it(
    model: Transformer,
    continued: list[list[int]],
    layout: str,
    num_pages: int,
    page_size: int,
    max_step_tokens: int,
    max_running: int,
) -> None:
    """Chunked prompts, prefixes that are shared, and requests that lose their pages."""
    config = EngineConfig(num_pages, page_size, max_step_tokens, max_running, layout)  # type: ignore[arg-type]
    engine = Engine(model, config)
    requests = workload(8)
    run(engine, requests)
    assert written(requests) == continued
    if num_pages == 40:
        assert engine.scheduler.num_preemptions > 0
    if num_pages == 400:
        again = workload(8)
        run(engine, again)
        assert written(again) == continued
        assert all(request.cached >= len(request.prompt) - 8 for request in again)


def test_asleep_and_with_other_weights(model: Transformer, continued: list[list[int]]) -> None:
    """Entries and sums of pages are computed again; the weights are the same all the time."""
    engine = Engine(model, EngineConfig(num_pages=400, page_size=8))
    requests = workload(8)
    for request in requests:
        engine.add(request)
    for disturb in (
        lambda: (engine.sleep(), engine.wake()),
        lambda: engine.swap_weights(model, 1, "keep"),
        lambda: engine.swap_weights(model, 2, "recompute"),
    ):
        for _ in range(3):
            engine.step()
        assert any(request.completion and not request.finish_reason for request in requests)
        disturb()
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    assert written(requests) == continued


def test_pages_of_one_mode_are_not_the_others(model: Transformer):
    engine = Engine(model, EngineConfig(num_pages=400, page_size=8))
    prompt = workload(1)[0].prompt
    params = SamplingParams(temperature=0, max_tokens=2)
    cached = []
    for mode in (FULL, OWN, OTHER, FULL, OWN, OTHER, None):
        request = Request("", prompt, params, attention=mode)
        run(engine, [request])
        cached.append(request.cached)
    whole = (len(prompt) - 1) // 8 * 8
    assert cached == [0, 0, 0, *[whole] * 4]  # the model's own mode is one of them


def test_log_probs_are_those_of_training(model: Transformer):
    """Of prompts and completions, in chunks and beside each other."""
    engine = Engine(model, EngineConfig(num_pages=400, page_size=8, max_step_tokens=33))
    requests = workload(8)
    for request in requests:
        request.params = replace(request.params, logprobs=0, prompt_logprobs=0)
    run(engine, requests)
    for request in requests:
        expected_LV = log_probs(model, request)
        tokens = [*request.prompt[1:], *(token.token_id for token in request.completion)]
        expected_L = expected_LV[torch.arange(len(tokens)), tokens]
        said = [*request.prompt_logprobs, *request.completion]
        found_L = torch.tensor([token.logprob for token in said])
        assert_close(found_L, expected_L, atol=1e-4, rtol=1e-4)


def test_a_grammar_holds(model: Transformer):
    """Structured output is a mask over logits, whatever was read for them."""

    class Even:
        def allowed_V(self) -> np.ndarray:
            return np.arange(VOCABULARY) % 2 == 0

        def accept(self, token: int) -> None:
            assert token % 2 == 0

    engine = Engine(model, EngineConfig(num_pages=400, page_size=8))
    requests = workload(8)
    for request in requests:
        request.grammar = Even()
    run(engine, requests)
    for request, tokens in zip(requests, written(requests), strict=True):
        of_completion_XV = log_probs(model, request)[len(request.prompt) - 1 :]
        assert tokens == (2 * of_completion_XV[:, ::2].argmax(-1)).tolist()


def test_the_engine_has_a_mode_for_those_that_do_not_say(model: Transformer):
    plain = workload(8)
    for request in plain:
        request.attention = None
    engine = Engine(model, EngineConfig(num_pages=400, page_size=8, attention=FULL))
    run(engine, plain)
    said = workload(8)
    for request in said:
        request.attention = FULL
    assert written(plain) == expected(model, said)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mode": "moba", "block_size": 12}', "12 is not a multiple of the 8 tokens of a page"),
        ('{"mode": "moba", "full_layers": [99]}', "full_layers has 99"),
        ('{"mode": "moba", "top_k": 1, "sink": true}', "take at least 2"),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_asked_for(
    model: Transformer, text: str, message: str
) -> None:
    engine = Engine(model, EngineConfig(num_pages=40, page_size=8))
    request = Request("", (1, 2), SamplingParams(), attention=read_mode(text))
    with pytest.raises(ConfigError, match=message):
        engine.add(request)
    with pytest.raises(ConfigError, match=message):
        Engine(model, EngineConfig(num_pages=40, page_size=8, attention=read_mode(text)))


def test_a_model_without_blocks_needs_to_be_told_their_size():
    engine = Engine(tiny_model(llama_config()), EngineConfig(num_pages=40, page_size=8))
    request = Request("", (1, 2), SamplingParams(), attention=OWN)
    with pytest.raises(ConfigError, match="block_size and top_k missing"):
        engine.add(request)
    given = Request("", (1, 2), SamplingParams(max_tokens=2), attention=OTHER)
    run(engine, [given])
    assert len(given.completion) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "give full, moba, or an object"),
        ('{"mode": "dense"}', "give full, moba, or an object"),
        ('{"mode": "moba", "blocks": 3}', "blocks: Extra inputs"),
        ('{"mode": "full", "top_k": 3}', "top_k: Extra inputs"),
        ('{"mode": "moba", "block_size": 0}', "block_size"),
    ],
)
def test_a_mode_that_is_none_is_refused(text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        read_mode(text)


def test_page_sums_are_those_of_the_keys(model: Transformer):
    """Of every page that a finished request filled, after sharing, preemption and reuse."""
    engine = Engine(model, EngineConfig(num_pages=24, page_size=8, max_step_tokens=33))
    requests = [r for r in workload(40) if r.attention is OWN]
    for request in requests:
        request.params = replace(request.params, max_tokens=40)
    run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    for layer in (0, 1):
        if layer in engine.runner.model.config.routing().full_layers:  # type: ignore[union-attr]
            continue
        keys: Tensor = engine.runner.entries.read(layer)[0].unflatten(0, (-1, 8))
        known = engine.prefix.pages()
        sums = engine.runner.entries.page_sums(layer)[known]
        assert (sums - keys[known].sum(1)).abs().max() < 1e-5
