"""Experts that the engine records are those of the passes whose log-probabilities it reports."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, tiny_model
from tests.serve.engine.test_engine import run, workload

ROOMY = EngineConfig(num_pages=400, page_size=4, records_routing=True)
CONFIGS = [
    pytest.param(k2_config(), id="mla"),
    pytest.param(llama_config(moe=k2_config().moe, num_layers=4), id="gqa"),
]


def asking(count: int, seed: int = 0) -> list[Request]:
    requests = workload(count, seed)
    for request in requests:
        request.wants_routing = True
    return requests


def routed(request: Request) -> np.ndarray:
    """``[rows, L, K]``"""
    return np.concatenate(request.expert_ids)


def by_trainer(model: Transformer, tokens: list[int]) -> np.ndarray:
    """What a pass over all of a request's tokens but the last chooses."""
    tokens_T = torch.tensor(tokens[:-1])
    context = packed_context([len(tokens_T)])
    with torch.no_grad():
        ids_LTK = model(tokens_T, context.positions_T, context).expert_ids_LTK
    assert ids_LTK is not None
    return ids_LTK.transpose(0, 1).numpy()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sizes", [(400, 16, 512, 64), (22, 4, 60, 8), (90, 1, 16, 3)])
def test_all_rows_whatever_the_sizes(config: ModelConfig, sizes: tuple[int, ...]) -> None:
    """Alone in float32 no two experts are as close as rounding: engine and trainer choose alike."""
    model = tiny_model(config)
    engine = Engine(model, EngineConfig(*sizes, records_routing=True))  # type: ignore[arg-type]
    requests = asking(10)
    run(engine, requests)
    for request in requests:
        np.testing.assert_array_equal(routed(request), by_trainer(model, request.tokens))
        assert len(request.expert_ids) == len(request.completion)
    if sizes[0] == 22:
        assert engine.scheduler.num_preemptions > 0
    if sizes[1] < 16:
        assert engine.prefix.hits > 0


def test_a_prompt_that_is_computed_once_is_recorded_for_all_who_have_it() -> None:
    model = tiny_model(k2_config())
    engine = Engine(model, ROOMY)
    prompt = tuple(range(30))
    params = SamplingParams(temperature=1.0, max_tokens=8, seed=3)
    leader = Request("0", prompt, params, wants_routing=True)
    others = [
        Request(str(n), prompt, params, sample=n, leader=leader, wants_routing=True)
        for n in range(1, 4)
    ]
    run(engine, [leader, *others])
    # Another turn, on top of what the first one left in the cache.
    more = Request("m", (*leader.tokens, 5, 6, 7), params, wants_routing=True)
    run(engine, [more])
    assert more.cached >= 36
    for request in (leader, *others, more):
        np.testing.assert_array_equal(routed(request), by_trainer(model, request.tokens))
    assert all(request.cached == 28 for request in others)


def test_tokens_keep_the_experts_of_the_weights_that_drew_them() -> None:
    """The weights change in the middle of a completion; what was drawn stands, what is computed
    again for what comes after does not count for it. The balancing bias is part of the weights."""
    old, new = tiny_model(k2_config()), tiny_model(k2_config())
    for layer in new.layers[1:]:
        layer.ffn.router.bias.copy_(layer.ffn.router.bias.flip(0))
    engine = Engine(old, ROOMY)
    params = SamplingParams(temperature=1.0, max_tokens=20, ignore_eos=True)
    request = Request("a", tuple(range(40)), params, wants_routing=True)
    engine.add(request)
    while len(request.completion) < 8:
        engine.step()
    engine.swap_weights(new, 1, "recompute")
    while request.finish_reason is None:
        engine.step()
    assert request.preemptions == 1
    ids = routed(request)
    by_old, by_new = (by_trainer(model, request.tokens) for model in (old, new))
    drawn = len(request.prompt) + 7  # rows that the eighth token needed
    np.testing.assert_array_equal(ids[:drawn], by_old[:drawn])
    np.testing.assert_array_equal(ids[drawn:], by_new[drawn:])
    assert (by_old != by_new).any(axis=(1, 2))[drawn:].any()


def test_a_prompt_begun_under_other_weights_has_the_experts_of_those_that_went_on() -> None:
    old, new = tiny_model(k2_config()), tiny_model(k2_config(), seed=5)
    engine = Engine(old, replace(ROOMY, max_step_tokens=16))
    request = Request("a", tuple(range(40)), SamplingParams(max_tokens=2), wants_routing=True)
    engine.add(request)
    engine.step()
    assert request.computed == 16
    engine.swap_weights(new, 1, "recompute")
    while request.finish_reason is None:
        engine.step()
    np.testing.assert_array_equal(routed(request), by_trainer(new, request.tokens))


def test_preemption_at_any_time_changes_nothing() -> None:
    model = tiny_model(k2_config())
    engine = Engine(model, ROOMY)
    requests = asking(4, seed=3)
    for request in requests:
        engine.add(request)
    rng = random.Random(0)
    while engine.has_work():
        engine.step()
        if engine.scheduler.running and rng.random() < 0.6:
            engine.scheduler.preempt(rng.choice(engine.scheduler.running))
    assert sum(request.preemptions for request in requests) > 5
    for request in requests:
        np.testing.assert_array_equal(routed(request), by_trainer(model, request.tokens))


def test_many_experts_have_wider_ids() -> None:
    moe = {"num_experts": 300, "experts_per_token": 3, "expert_hidden_size": 8}
    model = tiny_model(k2_config(moe=moe))
    request = Request("a", tuple(range(30)), SamplingParams(max_tokens=4), wants_routing=True)
    run(Engine(model, ROOMY), [request])
    assert routed(request).dtype == np.uint16
    assert routed(request).max() > 255
    np.testing.assert_array_equal(routed(request), by_trainer(model, request.tokens))


def test_what_was_not_asked_for_is_not_kept() -> None:
    request = workload(1)[0]
    run(Engine(tiny_model(k2_config()), ROOMY), [request])
    assert not request.expert_ids


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="no experts"):
        Engine(tiny_model(llama_config()), ROOMY)
    engine = Engine(tiny_model(k2_config()), replace(ROOMY, records_routing=False))
    with pytest.raises(ConfigError, match="without records_routing"):
        engine.add(asking(1)[0])
