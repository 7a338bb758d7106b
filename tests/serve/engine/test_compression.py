"""Requests whose tokens have fewer slots (KeepKV), beside others in one engine.

One oracle is a pass over all tokens in which each row sees what an evicting cache would have left
it; the other is the same request alone, in an engine whose attention is the plain reference.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from selenite.errors import ConfigError
from selenite.model import attention
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer
from selenite.ops.attention import attend_reference
from selenite.ops.attention_context import AttentionContext
from selenite.serve.attention_mode import AnyMode, KeepKvAttention, TidalAttention, read_mode
from selenite.serve.engine.pooling import Pooler
from selenite.serve.engine.request import Request, Status
from selenite.types import SamplingParams
from tests.fixtures.engines import made, run
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

VOCABULARY = 96
LAYERS = 4
FULL = read_mode("full")


def keepkv(budget: int | float = 16, **more: Any) -> KeepKvAttention:
    settings = {"sinks": 2, "window": 4, "every": 8, "likeness": 0.3, **more}
    return KeepKvAttention(mode="keepkv", budget=budget, **settings)


MERGED, GONE = keepkv(), keepkv(12, merge="none", keep="recent", every=5)
COUNTED = keepkv(0.4, merge="votes", every=None)
CHOSEN = keepkv(
    20, reading=TidalAttention(mode="tidal", budget=10, layers=[1, 3], sinks=1, recent=2)
)
BY_HEADS = keepkv(
    20, reading=TidalAttention(mode="tidal", budget=12, layers=[0], sinks=1, share="head")
)
ALL_ROWS = keepkv(14, keep="h2o", merge="none")
MODES = (FULL, MERGED, GONE, COUNTED, CHOSEN, None, ALL_ROWS, BY_HEADS)


@pytest.fixture(scope="module", params=["k2", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    """With two query heads for each key/value head, or latent attention, which is expanded."""
    config = k2_config() if request.param == "k2" else llama_config()
    return tiny_model(ModelConfig.model_validate({**config.model_dump(), "num_layers": LAYERS}))


def asked(number: int, mode: AnyMode | None, max_tokens: int = 20, **more: Any) -> Request:
    """After a prompt of 20 to 80 tokens that shares its beginning with the others'. No token comes
    twice in it, since of two keys that are the same rounding would say which is more alike."""
    tokens = random.Random(0).sample(range(VOCABULARY), VOCABULARY)
    rng = random.Random(number + 1)
    base, own = tokens[: rng.choice([16, 40, 60])], rng.sample(tokens[60:], rng.randrange(4, 20))
    prompt = (*base, *own)
    params = SamplingParams(
        temperature=1, seed=number, max_tokens=max_tokens, ignore_eos=True, logprobs=0
    )
    return Request(str(number), prompt, params, attention=mode, **more)


def workload() -> list[Request]:
    return [asked(number, MODES[number % len(MODES)], 10 + 2 * number) for number in range(10)]


@pytest.fixture(scope="module")
def continued(model: Transformer) -> list[list[int]]:
    """The workload, each request alone, by the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "attend", attend_reference)
        return [run(made(model), [request])[0] for request in workload()]


def logprobs_with(model: Transformer, request: Request, seen: list[list[int]]) -> list[float]:
    """Of the completion, if the row at each of its tokens but the last sees these positions."""
    tokens = request.tokens[:-1]
    T, n, M = len(tokens), len(request.prompt), model.config.kv_heads
    select = torch.ones(T, M, T, dtype=torch.bool)
    for row, positions in enumerate(seen, start=n):
        select[row] = False
        select[row, :, positions] = True
    context = AttentionContext(
        torch.arange(T), torch.zeros(T, dtype=torch.int64), ((0, T, 0),), select=select
    )
    with torch.no_grad():
        hidden_TD = model(torch.tensor(tokens), context.positions_T, context).hidden_TD
        logprob_TV = model.logits(hidden_TD).float().log_softmax(-1)
    return [float(logprob_TV[t - 1, request.tokens[t]]) for t in range(n, T + 1)]


@pytest.mark.parametrize("every", [None, 1, 5])
@pytest.mark.parametrize("max_step_tokens", [512, 7])
def test_first_and_last_tokens_alone(
    model: Transformer, every: int | None, max_step_tokens: int
) -> None:
    """StreamingLLM with positions as they were: a mask over all tokens says the same."""
    engine = made(model, max_step_tokens=max_step_tokens)
    request = asked(5, keepkv(12, merge="none", keep="recent", every=every), 30)
    run(engine, [request])
    n = len(request.prompt)
    kept, seen, merges = list(range(n)), list[list[int]](), 0
    for position in range(n, n + 29):
        if len(kept) > (12 if merges == 0 else 12 + every - 1 if every else 1000):
            kept, merges = kept[:2] + kept[-10:], merges + 1
        kept.append(position)
        seen.append(list(kept))
    assert merges == (1 if every is None else 1 + 28 // every)
    found = [token.logprob or 0.0 for token in request.completion]
    assert_close(found, logprobs_with(model, request, seen), rtol=1e-4, atol=1e-4)
    others = [list(range(position + 1)) for position in range(n, n + 29)]
    assert not np.allclose(found, logprobs_with(model, request, others), atol=1e-2)


def test_modes_are_not_the_same(model: Transformer, continued: list[list[int]]) -> None:
    full = [run(made(model), [asked(n, FULL, 10 + 2 * n)])[0] for n in range(10)]
    assert sum(a != b for a, b in zip(full, continued, strict=True)) >= 4


@pytest.mark.parametrize(("page_size", "max_step_tokens"), [(4, 512), (16, 7), (1, 64)])
def test_each_is_as_if_alone(
    model: Transformer, continued: list[list[int]], page_size: int, max_step_tokens: int
) -> None:
    """Chunked prompts, shared prefixes, pages of any size, other modes in the same step."""
    engine = made(
        model, num_pages=2000 // page_size, page_size=page_size, max_step_tokens=max_step_tokens
    )
    assert run(engine, workload()) == continued
    assert engine.scheduler.num_preemptions == 0
    again = workload()
    assert run(engine, again) == continued
    for request in again:
        is_whole = request.attention is ALL_ROWS  # all of its rows are computed
        assert (
            request.cached == 0
            if is_whole
            else request.cached >= len(request.prompt) - 4 - page_size
        )


def test_a_budget_that_is_never_reached_changes_nothing(model: Transformer) -> None:
    """To the bit."""
    found = []
    for mode in (FULL, keepkv(200), None):
        request = asked(3, mode)
        run(made(model), [request])
        found.append([token.sampled_logprob for token in request.completion])
        assert request.compressions == 0
        assert request.clean == request.computed
    assert found[0] == found[1] == found[2]


def test_neighbours_know_nothing_of_it(model: Transformer) -> None:
    """Rows that read everything, in pages that held merged slots, beside rows of merged ones."""
    alone = asked(3, FULL, 30)
    run(made(model), [alone])
    engine = made(model, num_pages=60, max_running=3)
    for number in range(6):  # which leave biases in all pages
        run(engine, [asked(number, MERGED, 12), asked(number + 6, COUNTED, 12)])
    beside = asked(3, FULL, 30)
    run(engine, [asked(1, MERGED, 30), beside, asked(2, CHOSEN, 30)])
    logprobs = [[token.logprob for token in one.completion] for one in (alone, beside)]
    assert_close(logprobs[0], logprobs[1], rtol=1e-5, atol=1e-5)


def test_memory_is_given_to_others(model: Transformer) -> None:
    """A cache with room for one whole request and a bit runs four whose slots were merged."""
    long = [asked(number, keepkv(8, every=4), 40) for number in range(4)]
    prompt = tuple(random.Random(9).randrange(VOCABULARY) for _ in range(70))
    for number, request in enumerate(long):
        request.prompt = (number, *prompt)
        request.tokens = list(request.prompt)
    engine = made(model, num_pages=32)
    most = 0
    for request in long:
        engine.add(request)
    while engine.has_work():
        engine.step()
        engine.check_integrity()
        most = max(most, sum(own.status is Status.RUNNING for own in long))
        for own in long:
            if own.compressions:
                assert own.slots <= 8 + 4
                assert len(own.pages) <= 3
    assert most == 4
    assert engine.scheduler.num_preemptions == 0


def test_merged_pages_are_nobody_else_s(model: Transformer) -> None:
    """What comes after a reply finds the prompt's pages, and none of the reply's."""
    engine = made(model)
    first = asked(5, MERGED, 24)
    (said,) = run(engine, [first])
    assert first.compressions > 1
    assert first.clean == len(first.prompt) < first.computed
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    prompt = (*first.prompt, *said, 7, 8)
    later = Request("later", prompt, params, attention=FULL)
    found = run(engine, [later])
    assert later.cached == len(first.prompt) // 4 * 4
    assert found == run(made(model), [Request("new", prompt, params, attention=FULL)])


@pytest.mark.parametrize("max_step_tokens", [512, 7])
def test_what_all_rows_attend_to_is_kept(model: Transformer, max_step_tokens: int) -> None:
    """Sums over the prompt's rows, however it was cut; found again by a pass over all of it."""
    engine = made(model, max_step_tokens=max_step_tokens)
    request = asked(5, keepkv(12, keep="h2o", merge="none", every=None))
    engine.add(request)
    while request.computed < len(request.prompt):
        engine.step()
    assert request.sums is not None
    n, M = len(request.prompt), model.config.kv_heads
    assert request.sums.shape == (LAYERS, M, n)
    whole = made(model)
    again = asked(5, request.attention)
    whole.add(again)
    whole.step()
    assert again.sums is not None
    assert_close(request.sums, again.sums, rtol=1e-4, atol=1e-4)
    rows = torch.tensor(float(n * (model.config.num_heads // M)))
    assert_close(request.sums.sum(2), rows.expand(LAYERS, M), rtol=1e-4, atol=1e-3)
    engine.step()
    assert request.slots == 12 + 1
    assert request.sums.shape == (LAYERS, M, 12)


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_refresh_begins_again_with_all_that_was_said(
    model: Transformer, is_forgotten: bool
) -> None:
    """Until its slots are merged again, the entries are those of a prompt of the same tokens;
    whether the prefix cache still had the prompt's or not."""
    engine = made(model)
    request = asked(5, keepkv(14, refresh_every=10, every=3), 28)
    engine.add(request)
    refreshed = 0
    while request.finish_reason is None:
        was_merged, tokens = request.merged, tuple(request.tokens)
        if is_forgotten:
            engine.prefix.clear()
        engine.step()
        engine.check_integrity()
        if not was_merged or request.merged:
            continue
        refreshed += 1
        assert request.computed == request.clean == len(tokens)
        other = made(model)
        dense = Request("dense", tokens, SamplingParams(max_tokens=1), attention=FULL)
        other.add(dense)
        other.scheduler.advance(chunks := other.scheduler.schedule())
        other.runner.run(chunks)
        for layer in range(LAYERS):
            stored = engine.runner.entries.read(layer), other.runner.entries.read(layer)
            for ours, theirs in zip(*stored, strict=True):
                places = [_slots(one, len(tokens)) for one in (request, dense)]
                assert_close(ours[places[0]], theirs[places[1]], atol=1e-5, rtol=1e-5)
    assert refreshed == 2
    assert request.preemptions == 0


def _slots(request: Request, count: int) -> torch.Tensor:
    return torch.tensor([request.pages[i // 4] * 4 + i % 4 for i in range(count)])


@pytest.mark.parametrize("max_step_tokens", [512, 10, 9, 1])
@pytest.mark.parametrize("mode", [keepkv(16), keepkv(16, window=1), keepkv(14, every=1)])
def test_a_restart_scores_by_as_many_queries_whatever_the_chunks(
    model: Transformer, mode: KeepKvAttention, max_step_tokens: int
) -> None:
    """Also where a chunk ends one token before the last, which is where slots may be merged."""
    found = []
    for size in (512, max_step_tokens):
        engine = made(model, max_step_tokens=size)
        request = asked(5, mode, 24)
        engine.add(request)
        while len(request.completion) < 6:
            engine.step()
        engine.scheduler.preempt(request)
        while engine.has_work():
            engine.step()
        found.append([token.token_id for token in request.completion])
    assert found[0] == found[1]


def test_a_cache_of_one_prompt_is_enough(model: Transformer) -> None:
    """Old pages are given back before merged entries take new ones."""
    request = asked(5, keepkv(30), 12)
    pages = -(-(len(request.prompt) + 11) // 4)
    alone = asked(5, keepkv(30), 12)
    assert run(made(model, num_pages=pages), [request]) == run(made(model), [alone])
    assert request.preemptions == 0


def test_what_was_cached_is_of_the_first_start(model: Transformer) -> None:
    engine = made(model)
    run(engine, [asked(5, FULL, 1)])
    request = asked(5, keepkv(14, refresh_every=8, every=3), 30)
    run(engine, [request])
    assert 0 < request.cached < len(request.prompt)


def test_who_loses_pages_goes_on(model: Transformer) -> None:
    engine = made(model, num_pages=34, max_running=4)
    requests = workload()
    found = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    assert [len(own) for own in found] == [request.params.max_tokens for request in requests]


def test_samples_of_one_prompt(model: Transformer) -> None:
    """Those that wait for the first one's prompt compute the rows whose queries they need."""
    engine = made(model)
    leader = asked(5, MERGED)
    others = [asked(5, MERGED, leader=leader) for _ in range(3)]
    found = run(engine, [leader, *others])
    assert all(own == found[0] for own in found)
    assert all(other.cached > 0 for other in others)


def test_a_grammar_holds(model: Transformer) -> None:
    class Even:
        def allowed_V(self) -> np.ndarray:
            return np.arange(VOCABULARY) % 2 == 0

        def accept(self, token_id: int) -> None:
            assert token_id % 2 == 0

        @property
        def is_complete(self) -> bool:
            return False

    request = asked(5, MERGED, 20, grammar=Even())
    (found,) = run(made(model), [request])
    assert request.compressions > 0
    assert len(found) == 20
    assert not any(token % 2 for token in found)


def test_asleep_and_with_other_weights(model: Transformer) -> None:
    engine = made(model)
    request = asked(5, MERGED, 30)
    engine.add(request)
    for _ in range(6):
        engine.step()
    assert request.merged
    engine.sleep()
    engine.wake()
    for _ in range(6):
        engine.step()
    assert request.merged
    engine.swap_weights(model, 1, "keep")
    engine.step()
    assert request.merged
    engine.swap_weights(model, 2, "recompute")
    assert not request.merged
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    assert len(request.completion) == 30


@pytest.mark.parametrize(
    ("changes", "mode", "message"),
    [
        ({"layout": "latent"}, MERGED, "--kv-layout expanded"),
        (
            {},
            keepkv(reading=TidalAttention(mode="tidal", budget=8, correct_every=4)),
            "refresh_every",
        ),
    ],
)
def test_what_cannot_be_is_named(
    model: Transformer, changes: dict[str, Any], mode: KeepKvAttention, message: str
) -> None:
    if "layout" in changes and model.config.attention != "mla":
        changes = {"layout": "latent"}
        run(made(model, **changes), [asked(0, mode)])  # of such a model all layouts are one
        return
    prompt = tuple(range(60))
    params = SamplingParams(temperature=0, max_tokens=4)
    with pytest.raises(ConfigError, match=message):
        made(model, **changes).add(Request("0", prompt, params, attention=mode))


def test_an_embedding_has_no_row_that_decodes(model: Transformer) -> None:
    with pytest.raises(ConfigError, match="an embedding has none"):
        made(model).add(asked(0, MERGED, pooler=Pooler("last")))
    request = asked(0, None, pooler=Pooler("last"))
    run(made(model, attention=MERGED), [request])  # a server's default is no wish of this request


def test_routing_has_no_place_in_merged_slots() -> None:
    model = tiny_model(k2_config())
    with pytest.raises(ConfigError, match="no experts of their own"):
        made(model, records_routing=True).add(asked(0, MERGED, wants_routing=True))


def test_blocks_and_merged_slots_do_not_go_together(model: Transformer) -> None:
    config = ModelConfig.model_validate(
        {**model.config.model_dump(), "moba": {"block_size": 8, "top_k": 2}}
    )
    with pytest.raises(ConfigError, match="choose blocks"):
        made(tiny_model(config)).add(asked(0, MERGED))
