"""The engine against the plain decoder, under every kind of pressure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.errors import ConfigError, NonFiniteError
from selenite.model.decode import decode
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.serve.attention_mode import AnyMode, read_mode
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.pooling import Pooler
from selenite.serve.engine.request import Request
from selenite.types import FinishReason, SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

VOCABULARY = 96
ROOMY = EngineConfig(num_pages=400, page_size=4)


@pytest.fixture(scope="module", params=["k2", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    return tiny_model(k2_config() if request.param == "k2" else llama_config())


FULL = read_mode("full")
DRAFTS = read_mode('{"mode": "tidal", "budget": 8, "layers": [0], "drafts": 3}')
MODES = (
    FULL,
    DRAFTS,
    read_mode('{"mode": "moba", "block_size": 4, "top_k": 2}'),
    read_mode('{"mode": "tidal", "budget": 8, "layers": [0]}'),
    read_mode('{"mode": "tidal", "budget": 8, "layers": [0], "correct_every": 4}'),
    read_mode('{"mode": "keepkv", "budget": 8, "every": 3}'),
    read_mode('{"mode": "keepkv", "budget": 0.3, "merge": "votes", "refresh_every": 8}'),
)


def workload(count: int, seed: int = 0, modes: Sequence[AnyMode] = (FULL,)) -> list[Request]:
    """Prompts of 1 to 60 tokens that share beginnings, some greedy, some sampled."""
    rng = random.Random(seed)
    base = [rng.randrange(VOCABULARY) for _ in range(40)]
    requests = []
    for index in range(count):
        own = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(1, 20))]
        prompt = (*base[: rng.randrange(41)], *own)
        params = SamplingParams(
            temperature=rng.choice([0.0, 1.0]),
            top_p=rng.choice([1.0, 0.9]),
            seed=index,
            max_tokens=rng.randrange(1, 24),
        )
        mode = modes[index % len(modes)]
        requests.append(Request(str(index), prompt, params, attention=mode))
    return requests


def expected(model: Transformer, requests: list[Request]) -> list[list[int]]:
    results = decode(model, [r.prompt for r in requests], [r.params for r in requests])
    return [result.token_ids for result in results]


def written(requests: list[Request]) -> list[list[int]]:
    return [[token.token_id for token in request.completion] for request in requests]


def run(engine: Engine, requests: list[Request]) -> None:
    for request in requests:
        engine.add(request)
    while engine.has_work():
        engine.step()
        engine.check_integrity()


@pytest.mark.parametrize("layout", ["latent", "expanded"])
@pytest.mark.parametrize(
    ("num_pages", "page_size", "max_step_tokens", "max_running"),
    [(400, 16, 512, 64), (22, 4, 60, 8), (90, 1, 16, 3), (25, 4, 1, 2)],
)
def test_tokens_are_the_decoders_whatever_the_sizes(
    model: Transformer,
    layout: Literal["latent", "expanded"],
    num_pages: int,
    page_size: int,
    max_step_tokens: int,
    max_running: int,
) -> None:
    config = EngineConfig(num_pages, page_size, max_step_tokens, max_running, layout)
    engine = Engine(model, config)
    requests = workload(10)
    run(engine, requests)
    assert written(requests) == expected(model, requests)
    assert all(r.finish_reason is FinishReason.LENGTH for r in requests)
    if num_pages == 22:
        assert engine.scheduler.num_preemptions > 0


@pytest.mark.parametrize(
    ("num_pages", "page_size", "max_step_tokens", "max_running"),
    [(400, 4, 512, 64), (120, 2, 60, 8)],
)
def test_beside_all_modes_full_attention_is_the_decoders(
    model: Transformer, num_pages: int, page_size: int, max_step_tokens: int, max_running: int
) -> None:
    engine = Engine(model, EngineConfig(num_pages, page_size, max_step_tokens, max_running))
    requests = workload(21, modes=MODES)
    run(engine, requests)
    exact = [request for request in requests if request.attention in (FULL, DRAFTS)]
    assert len(exact) == 6
    assert written(exact) == expected(model, exact)


def test_a_preempted_request_is_taken_up_where_it_was(model: Transformer):
    engine = Engine(model, ROOMY)
    requests = workload(4, seed=3, modes=(FULL, DRAFTS))
    for request in requests:
        engine.add(request)
    rng = random.Random(0)
    while engine.has_work():
        engine.step()
        if engine.scheduler.running and rng.random() < 0.6:
            engine.scheduler.preempt(rng.choice(engine.scheduler.running))
        engine.check_integrity()
    assert sum(request.preemptions for request in requests) > 5
    assert written(requests) == expected(model, requests)


@settings(max_examples=30, deadline=None)
@given(actions=st.lists(st.sampled_from(["add", "step", "abort", "preempt"]), max_size=60))
def test_pages_are_accounted_for_after_every_operation(actions: list[str]):
    engine = Engine(tiny_model(llama_config()), EngineConfig(num_pages=24, page_size=4))
    rng = random.Random(1)
    waiting = workload(60, seed=2, modes=MODES)
    alive: list[Request] = []
    for action in actions:
        alive = [request for request in alive if request.finish_reason is None]
        if action == "add":
            alive.append(waiting.pop())
            engine.add(alive[-1])
        elif action == "step":
            engine.step()
        elif action == "abort" and alive:
            engine.abort(rng.choice(alive))
        elif action == "preempt" and engine.scheduler.running:
            engine.scheduler.preempt(rng.choice(engine.scheduler.running))
        engine.check_integrity()
    for request in alive:
        engine.abort(request)
    engine.check_integrity()
    assert not engine.has_work()


def test_a_prefix_is_computed_once_and_only_within_its_salt(model: Transformer):
    engine = Engine(model, ROOMY)
    prompt = tuple(range(30))
    first, second, other = (
        Request(name, prompt, SamplingParams(max_tokens=2), salt=salt)
        for name, salt in (("1", ""), ("2", ""), ("3", "secret"))
    )
    for request in (first, second, other):
        run(engine, [request])
    assert (first.cached, second.cached, other.cached) == (0, 28, 0)
    assert written([first]) == written([second]) == written([other])


def test_samples_of_one_prompt_wait_for_its_first(model: Transformer):
    engine = Engine(model, EngineConfig(num_pages=400, page_size=4, max_step_tokens=8))
    prompt = tuple(range(30))
    params = SamplingParams(max_tokens=5, seed=4)
    leader = Request("0", prompt, params)
    others = [Request(str(i), prompt, params, sample=i, leader=leader) for i in (1, 2, 3)]
    run(engine, [leader, *others])
    assert [request.cached for request in others] == [28, 28, 28]
    assert len({tuple(tokens) for tokens in written([leader, *others])}) > 1
    alone = Request("again", prompt, params, sample=2)
    run(Engine(model, ROOMY), [alone])
    assert written([alone]) == written(others[1:2])


def test_slots_of_others_are_never_read(model: Transformer):
    """The cache is NaN where nothing was written; a step that read it would fail."""
    engine = Engine(model, EngineConfig(num_pages=60, page_size=4))
    requests = workload(10, seed=5)
    for request in requests:
        engine.add(request)
    for layer in range(model.config.num_layers):
        for stored in engine.runner.entries.read(layer):
            assert stored.isnan().all()
    while engine.has_work():
        engine.step()
        for page in engine.pool._free:
            for layer in range(model.config.num_layers):
                for stored in engine.runner.entries.read(layer):
                    stored[page * 4 : page * 4 + 4] = torch.nan
    assert written(requests) == expected(model, requests)


def test_a_request_without_a_distribution_fails_alone():
    model = tiny_model(llama_config())
    with torch.no_grad():
        model.embed.weight[95] = torch.nan
    engine = Engine(model, ROOMY)
    healthy = [Request(str(i), (1, 2, i), SamplingParams(max_tokens=4)) for i in range(3)]
    sick = Request("sick", (1, 2, 95), SamplingParams(max_tokens=4))
    run(engine, [*healthy, sick])
    assert sick.finish_reason is FinishReason.ERROR
    assert isinstance(sick.error, NonFiniteError)
    assert written(healthy) == expected(model, healthy)


def test_a_fault_of_a_requests_own_text_or_grammar_ends_that_request_alone(
    model: Transformer, caplog: pytest.LogCaptureFixture
):
    class Broken:
        def allowed_V(self) -> None:
            return None

        def accept(self, token: int) -> None:
            raise RuntimeError("a broken grammar")

    def broken(token: int) -> bool:
        raise RuntimeError("a broken reader")

    engine = Engine(model, ROOMY)
    healthy = workload(3, seed=8)
    sick = [
        Request("reader", (1, 2), SamplingParams(max_tokens=4), stops=broken),
        Request("grammar", (1, 2), SamplingParams(max_tokens=4), grammar=Broken()),
    ]
    run(engine, [*sick, *healthy])
    assert written(healthy) == expected(model, healthy)
    assert [request.finish_reason for request in sick] == [FinishReason.ERROR] * 2
    assert [str(request.error) for request in sick] == ["a broken reader", "a broken grammar"]
    assert "request reader failed" in caplog.text


def test_a_grammar_that_is_complete_ends_before_the_least_length(model: Transformer):
    class OneToken:
        def __init__(self) -> None:
            self.written = 0

        def allowed_V(self) -> np.ndarray:
            allowed_V = np.zeros(VOCABULARY, dtype=bool)
            allowed_V[9 if self.written else 8] = True
            return allowed_V

        def accept(self, token: int) -> None:
            self.written += 1

    params = SamplingParams(max_tokens=8, min_tokens=4)
    request = Request("", (1, 2), params, frozenset({9}), grammar=OneToken())
    run(Engine(model, ROOMY), [request])
    assert written([request]) == [[8, 9]]
    assert request.finish_reason is FinishReason.STOP


def test_a_grammars_end_cannot_be_ignored(model: Transformer):
    class Ends:
        """One token, then the end token, then nothing."""

        def __init__(self) -> None:
            self.accepted: list[int] = []

        def allowed_V(self) -> np.ndarray:
            return np.arange(VOCABULARY) == (5, 7)[len(self.accepted)]

        def accept(self, token: int) -> None:
            self.accepted.append(token)

    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    request = Request("a", (1, 2), params, end_token_ids=frozenset({7}), grammar=Ends())
    run(Engine(model, ROOMY), [request])
    assert request.finish_reason is FinishReason.STOP
    assert written([request]) == [[5, 7]]


def test_banned_tokens_are_never_sampled(model: Transformer):
    def greedy(banned: frozenset[int], logprobs: int | None = None) -> Request:
        params = SamplingParams(temperature=0, max_tokens=4, logprobs=logprobs)
        request = Request("a", (1, 2, 3), params, banned_ids=banned)
        run(Engine(model, ROOMY), [request])
        return request

    free = written([greedy(frozenset())])[0]
    banned = frozenset(free)
    for logprobs in (None, 2):
        assert not banned & set(written([greedy(banned, logprobs)])[0])
    # What is reported is the model's own distribution.
    first = greedy(banned, logprobs=2).completion[0]
    assert first.top[0][0] == free[0]
    assert first.logprob == dict(first.top).get(first.token_id, first.logprob)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_are_the_models_hidden_states_whatever_the_chunks(
    model: Transformer, pooling: Literal["last", "mean"]
):
    prompts = [request.prompt for request in workload(6)]
    context = packed_context([len(prompt) for prompt in prompts])
    tokens_T = torch.tensor([token for prompt in prompts for token in prompt])
    with torch.no_grad():
        hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
    for config in (ROOMY, EngineConfig(30, 4, max_step_tokens=7, max_running=4)):
        engine = Engine(model, config)
        for _ in range(2):  # the second time beginnings are in the prefix cache
            requests = [
                Request(str(i), prompt, SamplingParams(max_tokens=1), pooler=Pooler(pooling))
                for i, prompt in enumerate(prompts)
            ]
            run(engine, requests)
            for request, own_TD in zip(
                requests, hidden_TD.split([len(p) for p in prompts]), strict=True
            ):
                pooled_D = own_TD[-1] if pooling == "last" else own_TD.mean(0)
                assert request.pooler is not None
                assert request.pooler.vector is not None
                assert request.finish_reason is FinishReason.STOP
                assert not request.completion
                vector_D = torch.tensor(request.pooler.vector)
                torch.testing.assert_close(vector_D, pooled_D / pooled_D.norm(), atol=1e-5, rtol=0)


def test_a_vector_of_a_broken_model_is_an_error(model: Transformer):
    broken = tiny_model(llama_config())
    with torch.no_grad():
        broken.embed.weight[3] = torch.nan
    request = Request("a", (1, 3), SamplingParams(max_tokens=1), pooler=Pooler("last"))
    other = Request("b", (1, 2), SamplingParams(max_tokens=1), pooler=Pooler("last"))
    run(Engine(broken, ROOMY), [request, other])
    assert isinstance(request.error, NonFiniteError)
    assert other.error is None


def test_nothing_is_given_up_for_a_request_that_cannot_start(model: Transformer):
    engine = Engine(model, EngineConfig(num_pages=12, page_size=4))
    run(engine, [Request("a", (1,) * 12, SamplingParams(temperature=0, max_tokens=1))])
    known = len(engine.prefix)
    assert known == 3
    running = Request("b", (2,) * 20, SamplingParams(temperature=0, max_tokens=8))
    engine.add(running)
    engine.step()
    engine.add(Request("c", (3,) * 36, SamplingParams(temperature=0, max_tokens=2)))
    queries = engine.prefix.queries
    for _ in range(3):
        engine.step()
        assert len(engine.scheduler.waiting) == 1
    assert len(engine.prefix) >= known
    assert engine.prefix.queries == queries  # what waits is not counted at each step


def test_end_tokens_stop_tokens_and_the_least_length(model: Transformer):
    greedy = SamplingParams(temperature=0, max_tokens=12)
    (plain,) = expected(model, [Request("", (5, 6), greedy)])
    third = plain[2]

    def result(params: SamplingParams, ends: frozenset[int]) -> Request:
        request = Request("", (5, 6), params, ends)
        run(Engine(model, ROOMY), [request])
        return request

    ended = result(greedy, frozenset({third}))
    assert written([ended])[0] == plain[: plain.index(third) + 1]
    assert ended.finish_reason is FinishReason.STOP
    stopped = result(replace(greedy, stop_token_ids=(third,)), frozenset())
    assert written([stopped]) == written([ended])
    ignored = result(replace(greedy, ignore_eos=True), frozenset({third}))
    assert written([ignored])[0] == plain
    late = result(replace(greedy, min_tokens=8), frozenset({third}))
    assert third not in written([late])[0][:8]
    told: list[int] = []
    by_listener = Request("", (5, 6), greedy, stops=lambda t: told.append(t) or len(told) == 3)
    run(Engine(model, ROOMY), [by_listener])
    assert told == plain[:3]
    assert by_listener.finish_reason is FinishReason.STOP


def test_logprobs_are_the_models_own(model: Transformer):
    params = SamplingParams(temperature=0.7, max_tokens=6, logprobs=3, prompt_logprobs=2)
    request = Request("", (1, 2, 3, 4, 5, 6, 7), params)
    run(Engine(model, EngineConfig(num_pages=40, page_size=2, max_step_tokens=3)), [request])
    (oracle,) = decode(model, [request.prompt], [params])
    own = [token.logprob for token in request.completion]
    torch.testing.assert_close(own, oracle.logprobs, rtol=0, atol=1e-4)
    for token in request.completion:
        assert token.logprob is not None
        assert len(token.top) == 3
        assert token.top[0][1] >= token.logprob - 1e-6
    # The prompt scored again as a completion: every token forced by a bias.
    assert [token.token_id for token in request.prompt_logprobs] == [2, 3, 4, 5, 6, 7]
    for position, scored in enumerate(request.prompt_logprobs):
        forced = SamplingParams(
            temperature=0, max_tokens=1, logprobs=0, logit_bias=((scored.token_id, 1e6),)
        )
        single = Request("", request.prompt[: position + 1], forced)
        run(Engine(model, ROOMY), [single])
        assert single.completion[0].token_id == scored.token_id
        assert scored.logprob == pytest.approx(single.completion[0].logprob, abs=1e-4)


def test_what_can_never_run_is_refused_at_once(model: Transformer):
    engine = Engine(model, EngineConfig(num_pages=10, page_size=4))
    refused = {
        "empty": Request("", (), SamplingParams()),
        "positions": Request("", (1,) * 200, SamplingParams(max_tokens=57)),
        "cache of 40 tokens": Request("", (1,) * 30, SamplingParams(max_tokens=12)),
        "not in the vocabulary": Request("", (VOCABULARY,), SamplingParams(max_tokens=1)),
    }
    for reason, request in refused.items():
        with pytest.raises(ConfigError, match=reason):
            engine.add(request)
    assert not engine.has_work()
    fits = Request("", (1,) * 30, SamplingParams(max_tokens=11))
    run(engine, [fits])
    assert len(fits.completion) == 11
