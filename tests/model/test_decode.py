"""The cached decoder: equal to the packed forward in any chunking and both layouts; sampling.

The bound of fast mode: chunks of other sizes sum in another order (6e-8 relative), and the latent
layout multiplies in another order too (1e-6); three layers with weights of 0.2 magnify that by
about ten. Batch-invariant mode, which promises 0, has tests of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from selenite.errors import ConfigError, NonFiniteError
from selenite.model.cache import EntryCache, entry_shapes
from selenite.model.config import ModelConfig
from selenite.model.decode import CachedModel, decode
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, Pages, packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.ops.sampling import uniform
from selenite.types import FinishReason, SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

Layout = Literal["latent", "expanded"]
FAST_BOUND = 1e-4
layouts = pytest.mark.parametrize("layout", ["latent", "expanded"])
configs = pytest.mark.parametrize(
    "config",
    [
        pytest.param(k2_config(), id="k2"),
        pytest.param(k2_config(q_lora_rank=None, v_head_dim=40), id="wide values"),
        pytest.param(llama_config(), id="llama"),
        pytest.param(
            k2_config(yarn={"factor": 4.0, "original_max_positions": 64, "beta_fast": 1.0}),
            id="yarn",
        ),
    ],
)


def fresh(model: Transformer, tokens: list[int]) -> Tensor:
    context = packed_context([len(tokens)])
    return model(torch.tensor(tokens), context.positions_T, context).hidden_TD.detach()


@configs
@layouts
@pytest.mark.parametrize("chunks", [[1], [40], [7, 1, 16]])
def test_cached_equals_packed(config: ModelConfig, layout: Layout, chunks: list[int]) -> None:
    model = tiny_model(config)
    texts = [random_tokens(n, 96, n).tolist() for n in (40, 23, 1)]
    cached = CachedModel(model, 3, 40, layout)
    found: list[list[Tensor]] = [[], [], []]
    step = 0
    while any(cached.lengths[i] < len(text) for i, text in enumerate(texts)):
        size = chunks[step % len(chunks)]
        todo = {
            i: text[cached.lengths[i] : cached.lengths[i] + size]
            for i, text in enumerate(texts)
            if cached.lengths[i] < len(text)
        }
        rows = cached.extend(todo).split([len(new) for new in todo.values()])
        for i, new in zip(todo, rows, strict=True):
            found[i].append(new)
        step += 1
    for text, rows in zip(texts, found, strict=True):
        assert_close(torch.cat(list(rows)), fresh(model, text), atol=FAST_BOUND, rtol=FAST_BOUND)


@configs
@layouts
def test_pages_in_any_order_equal_packed(config: ModelConfig, layout: Layout) -> None:
    """Two sequences interleaved over small pages; entries of a third lie between, and NaN."""
    model = tiny_model(config)
    texts = [random_tokens(n, 96, n).tolist() for n in (10, 7)]
    tables = torch.tensor([[5, 0, 3, -1], [2, 6, -1, -1]])
    store = EntryCache(config, 8 * 4, torch.float32, layout)
    slots = [
        torch.tensor([int(table[i // 4]) * 4 + i % 4 for i in range(len(text))])
        for table, text in zip(tables, texts, strict=True)
    ]
    context = AttentionContext(
        positions_T=torch.cat([torch.arange(10), torch.arange(7)]),
        sequence_T=torch.tensor([0] * 10 + [1] * 7),
        segments=((0, 10, 0), (10, 17, 0)),
        pages=Pages(4, tables, (10, 7), torch.cat(slots), store),
    )
    hidden_TD = model(torch.tensor(texts[0] + texts[1]), context.positions_T, context).hidden_TD
    for text, rows in zip(texts, hidden_TD.split([10, 7]), strict=True):
        assert_close(rows, fresh(model, text), atol=FAST_BOUND, rtol=FAST_BOUND)
    written = torch.cat(slots)
    untouched = [i for i in range(32) if i not in set(written.tolist())]
    for tensor in store.read(0):
        assert tensor[written].isfinite().all()
        assert tensor[untouched].isnan().all()


def test_a_slot_of_minus_one_stores_nothing() -> None:
    store = EntryCache(k2_config(), 4, torch.float32, "latent")
    store.write(1, (torch.ones(2, 1, 40),), torch.tensor([2, -1]))
    assert store.read(1)[0].isfinite().all((1, 2)).tolist() == [False, False, True, False]
    assert store.read(0)[0].isnan().all()


def test_entry_shapes() -> None:
    assert entry_shapes(k2_config(), "latent") == ((1, 40),)
    assert entry_shapes(k2_config(), "expanded") == ((4, 24), (4, 16))
    assert entry_shapes(llama_config(), "latent") == ((2, 16), (2, 16))


@layouts
def test_greedy_is_the_argmax_of_the_packed_forward(layout: Layout) -> None:
    model, prompt = tiny_model(k2_config()), [3, 1, 4]
    greedy = SamplingParams(temperature=0, max_tokens=15)
    [result] = decode(model, [prompt], [greedy], layout=layout)
    whole = prompt + result.token_ids
    hidden_TD = fresh(model, whole[:-1])[len(prompt) - 1 :]
    assert model.logits(hidden_TD).argmax(-1).tolist() == result.token_ids
    expected = token_logprobs(hidden_TD, model.head_weight, torch.tensor(result.token_ids))
    assert_close(torch.tensor(result.logprobs), expected.detach(), atol=FAST_BOUND, rtol=0)


def test_logprobs_are_the_models_own_whatever_the_filters() -> None:
    model, prompt = tiny_model(k2_config()), [3, 1, 4]
    narrow = SamplingParams(temperature=0.5, top_k=3, top_p=0.9, max_tokens=10, seed=8)
    [result] = decode(model, [prompt], [narrow])
    hidden_TD = fresh(model, prompt + result.token_ids[:-1])[len(prompt) - 1 :]
    expected = token_logprobs(hidden_TD, model.head_weight, torch.tensor(result.token_ids))
    assert_close(torch.tensor(result.logprobs), expected.detach(), atol=FAST_BOUND, rtol=0)


def test_limits_and_end_tokens() -> None:
    model, prompt = tiny_model(llama_config()), [7, 7]
    params = SamplingParams(max_tokens=20, seed=5)
    [free] = decode(model, [prompt], [params])
    assert len(free.token_ids) == len(free.logprobs) == 20
    assert free.finish_reason is FinishReason.LENGTH
    end = free.token_ids[6]
    cut = free.token_ids[: free.token_ids.index(end) + 1]
    ends = frozenset({end})
    [ended] = decode(model, [prompt], [params], ends)
    assert (ended.token_ids, ended.finish_reason) == (cut, FinishReason.STOP)
    [ignored] = decode(model, [prompt], [replace(params, ignore_eos=True)], ends)
    assert ignored.token_ids == free.token_ids
    own = replace(params, stop_token_ids=(end,), ignore_eos=True)
    [stopped] = decode(model, [prompt], [own])
    assert (stopped.token_ids, stopped.finish_reason) == (cut, FinishReason.STOP)
    [single] = decode(model, [prompt], [replace(params, max_tokens=1)])
    assert single.token_ids == free.token_ids[:1]
    last = frozenset({free.token_ids[0]})  # an end token at the limit is an end, not a cut
    [both] = decode(model, [prompt], [replace(params, max_tokens=1)], last)
    assert both.finish_reason is FinishReason.STOP


def test_each_prompt_by_its_own_parameters() -> None:
    """Of other lengths, seeds and limits; a sequence that ends early leaves the rest alone.

    With logits of order ten, tokens of a batch and alone could differ only where a random number
    falls within the fast bound of a border: not with these seeds.
    """
    model = tiny_model(k2_config())
    prompts = [random_tokens(n, 96, n).tolist() for n in (2, 30, 9)]
    params = [
        SamplingParams(seed=1, max_tokens=4),
        SamplingParams(seed=2, max_tokens=12, temperature=0.8),
        SamplingParams(temperature=0, max_tokens=8),
    ]
    together = decode(model, prompts, params)
    assert [len(d.token_ids) for d in together] == [4, 12, 8]
    for prompt, own, result in zip(prompts, params, together, strict=True):
        [alone] = decode(model, [prompt], [own])
        assert alone.token_ids == result.token_ids
        assert_close(alone.logprobs, result.logprobs, atol=FAST_BOUND, rtol=0)


def test_seed_decides() -> None:
    model = tiny_model(llama_config(init_std=0.05))
    runs = [
        decode(model, [[1, 2]], [SamplingParams(seed=seed, max_tokens=16)])[0].token_ids
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_prefill_by_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(k2_config())
    prompt, params = random_tokens(50, 96).tolist(), SamplingParams(temperature=0, max_tokens=5)
    [whole] = decode(model, [prompt], [params])
    for chunk in (1, 16, 49, 50):
        monkeypatch.setattr("selenite.model.decode.PREFILL_CHUNK", chunk)
        [cut] = decode(model, [prompt], [params])
        assert cut.token_ids == whole.token_ids
        assert_close(cut.logprobs, whole.logprobs, atol=FAST_BOUND, rtol=0)


def test_bfloat16_and_no_gradient() -> None:
    model = tiny_model(k2_config()).cast(torch.bfloat16)
    [result] = decode(model, [[1, 2, 3]], [SamplingParams(max_tokens=6)])
    assert len(result.token_ids) == 6
    assert all(p.grad is None for p in model.parameters())


def test_what_a_user_can_get_wrong() -> None:
    model = tiny_model(k2_config())
    with pytest.raises(ConfigError, match="prompt 1 is empty"):
        decode(model, [[1], []], [SamplingParams()] * 2)
    with pytest.raises(ConfigError, match=r"logit_bias: token id \d+ is not in the vocabulary"):
        decode(model, [[1]], [SamplingParams(logit_bias=((10**6, 1.0),))])
    with pytest.raises(ConfigError, match=r"257 tokens exceeds .* max_positions=256"):
        decode(model, [[1] * 250], [SamplingParams(max_tokens=7)])
    assert decode(model, [], []) == []
    [full] = decode(model, [[1] * 250], [SamplingParams(max_tokens=6)])
    assert len(full.token_ids) == 6
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError):
        decode(model, [[1]], [SamplingParams()])


def test_random_numbers_are_counted_by_position_in_the_sequence() -> None:
    """A head of zeros makes all tokens equally likely: the token is the number times 96."""
    model = tiny_model(llama_config())
    with torch.no_grad():
        model.head.weight.zero_()
    for prompt in ([5], [5, 6, 7]):
        [result] = decode(model, [prompt], [SamplingParams(seed=9, max_tokens=12)])
        positions = range(len(prompt), len(prompt) + 12)
        assert result.token_ids == [int(uniform(9, 0, p) * 96) for p in positions]
