"""The transformer: packing, recomputation, routing replay, dtypes, initial weights.

Tolerance of 1e-5 in float32, relative to the hidden states' own size: three layers of sums over
at most 96 products.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from selenite.model.config import ModelConfig
from selenite.model.init import init_weights
from selenite.model.transformer import ModelOutput, Transformer
from selenite.ops.attention_context import StatsRequest, packed_context
from selenite.ops.logprobs import token_logprobs
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

CONFIGS = [
    pytest.param(k2_config(), id="k2"),
    pytest.param(k2_config(q_lora_rank=None), id="k2 without query LoRA"),
    pytest.param(k2_config(v_head_dim=40), id="values wider than keys"),
    pytest.param(llama_config(), id="llama"),
    pytest.param(llama_config(tie_embeddings=True, head_dim=24), id="llama, tied"),
]
configs = pytest.mark.parametrize("config", CONFIGS)
LENGTHS = [5, 20, 5, 1, 9]


def run(model: Transformer, tokens_T: Tensor, lengths: list[int], **options: object) -> ModelOutput:
    context = packed_context(lengths, StatsRequest("exact"))
    return model(tokens_T, context.positions_T, context, **options)


@configs
def test_packing_documents_equals_running_them_alone(config: ModelConfig) -> None:
    model, tokens_T = tiny_model(config), random_tokens(sum(LENGTHS), config.vocab_size)
    together = run(model, tokens_T, LENGTHS)
    alone = [run(model, tokens, [len(tokens)]) for tokens in tokens_T.split(LENGTHS)]
    assert_close(
        together.hidden_TD, torch.cat([out.hidden_TD for out in alone]), atol=1e-5, rtol=1e-5
    )
    maxima = torch.stack([out.max_logit_LN for out in alone])  # type: ignore[arg-type]
    assert_close(together.max_logit_LN, maxima.amax(0), atol=1e-5, rtol=1e-5)
    if config.moe is not None:
        ids = torch.cat([out.expert_ids_LTK for out in alone], 1)  # type: ignore[arg-type]
        assert torch.equal(together.expert_ids_LTK, ids)  # type: ignore[arg-type]
        loads = torch.stack([out.load_LE for out in alone])  # type: ignore[arg-type]
        assert torch.equal(together.load_LE, loads.sum(0))  # type: ignore[arg-type]


@configs
def test_rows_see_neither_the_future_nor_other_documents(config: ModelConfig) -> None:
    """The exact gradient of one row's output by the embedded inputs."""
    model, tokens_T = tiny_model(config), random_tokens(12, config.vocab_size)
    rows: list[Tensor] = []
    model.embed.register_forward_hook(lambda _m, _i, out: rows.append(out))
    hidden_TD = run(model, tokens_T, [7, 5]).hidden_TD
    gradient = torch.autograd.grad(hidden_TD[9].square().sum(), rows[0])[0]
    seen = gradient.abs().amax(1) > 0
    assert seen.tolist() == [False] * 7 + [True] * 3 + [False] * 2


@configs
def test_recomputation_changes_nothing(config: ModelConfig) -> None:
    """Outputs, statistics and gradients to the last bit; no token is counted twice."""
    model, tokens_T = tiny_model(config), random_tokens(40, config.vocab_size)
    results = []
    for checkpoint in (False, True):
        model.zero_grad()
        out = run(model, tokens_T, [15, 25], checkpoint=checkpoint)
        logprobs = token_logprobs(out.hidden_TD, model.head_weight, tokens_T.roll(-1))
        (-logprobs.mean()).backward()
        results.append((out, {name: p.grad for name, p in model.named_parameters()}))
    (plain, plain_grads), (again, again_grads) = results
    assert torch.equal(plain.hidden_TD, again.hidden_TD)
    assert torch.equal(plain.max_logit_LN, again.max_logit_LN)  # type: ignore[arg-type]
    for name, gradient in plain_grads.items():
        assert gradient is not None, name
        assert torch.equal(gradient, again_grads[name]), name  # type: ignore[arg-type]
    if config.moe is not None:
        assert torch.equal(plain.load_LE, again.load_LE)  # type: ignore[arg-type]
        assert again.load_LE is not None
        assert again.load_LE.sum(1).tolist() == [40 * 2] * len(again.load_LE)


def test_statistics_and_routing_have_no_gradient() -> None:
    model = tiny_model(k2_config())
    out = run(model, random_tokens(6, 96), [6])
    for statistic in (out.max_logit_LN, out.load_LE, out.expert_ids_LTK):
        assert statistic is not None
        assert not statistic.requires_grad
    context = packed_context([6])
    assert model(random_tokens(6, 96), context.positions_T, context).max_logit_LN is None


def test_forward_leaves_the_model_as_it_was() -> None:
    model = tiny_model(k2_config())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run(model, random_tokens(9, 96), [9])
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_replay_of_the_recorded_routing() -> None:
    """int16 ids of layers, tokens and choices; the same output, and gate gradients, after the
    balancing bias has moved."""
    model, tokens_T = tiny_model(k2_config()), random_tokens(30, 96)
    first = run(model, tokens_T, [12, 18])
    ids = first.expert_ids_LTK
    assert ids is not None
    assert (ids.dtype, ids.shape) == (torch.int16, (2, 30, 2))
    for layer in model.layers[1:]:
        layer.ffn.router.bias.copy_(torch.arange(8) * 10.0)
    moved = run(model, tokens_T, [12, 18])
    assert not torch.equal(moved.hidden_TD, first.hidden_TD)
    for checkpoint in (False, True):
        replayed = run(model, tokens_T, [12, 18], replay_LTK=ids, checkpoint=checkpoint)
        assert torch.equal(replayed.hidden_TD, first.hidden_TD)
        assert torch.equal(replayed.expert_ids_LTK, ids)  # type: ignore[arg-type]
        model.zero_grad()
        replayed.hidden_TD.square().sum().backward()
        for layer in model.layers[1:]:
            assert layer.ffn.router.weight.grad.abs().max() > 0


def test_cast_keeps_router_and_norms_float32_and_the_trainers_bits() -> None:
    config, tokens_T = k2_config(), random_tokens(25, 96)
    trainer = tiny_model(config, compute_dtype=torch.bfloat16)
    engine = tiny_model(config).cast(torch.bfloat16)
    for name, parameter in engine.named_parameters():
        wide = "norm" in name or "router" in name
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    assert all(p.dtype == torch.float32 for p in trainer.parameters())
    one, other = run(trainer, tokens_T, [25]), run(engine, tokens_T, [25])
    assert one.hidden_TD.dtype == torch.bfloat16
    assert torch.equal(one.hidden_TD, other.hidden_TD)
    assert torch.equal(trainer.logits(one.hidden_TD), engine.logits(other.hidden_TD))


def test_tied_embeddings_share_one_weight() -> None:
    model = tiny_model(llama_config(tie_embeddings=True))
    assert model.head_weight is model.embed.weight
    assert "head.weight" not in dict(model.named_parameters())
    assert tiny_model(llama_config()).head_weight is not model.embed.weight


def test_initial_weights() -> None:
    """One generator in the order of names: the same everywhere, another for another seed."""
    model = init_weights(Transformer(k2_config(init_std=0.02)), seed=3)
    same = init_weights(Transformer(k2_config(init_std=0.02)), seed=3)
    other = init_weights(Transformer(k2_config(init_std=0.02)), seed=4)
    for (name, a), b, c in zip(
        model.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        if a.dim() == 1:
            assert (a == 1).all(), name
        else:
            assert not torch.equal(a, c), name
            # Standard error of a standard deviation over n values: 0.02 / sqrt(2n); six of them.
            assert abs(a.std().item() - 0.02) < 6 * 0.02 / (2 * a.numel()) ** 0.5, name
    assert all((b == 0).all() for b in model.buffers())


@pytest.mark.parametrize("interleaved", [True, False])
def test_position_matters_only_by_distance(interleaved: bool) -> None:
    """The same document later in the sequence: rotary embedding is relative.

    Angles up to 100 rad round at 4e-6, times logits of order ten.
    """
    config = k2_config(rope_interleaved=interleaved, moe=None)
    model, tokens_T = tiny_model(config), random_tokens(8, 96)
    context = packed_context([8])
    shifted = replace(context, positions_T=context.positions_T + 100)
    here = model(tokens_T, context.positions_T, context).hidden_TD
    there = model(tokens_T, shifted.positions_T, shifted).hidden_TD
    assert_close(here, there, atol=1e-3, rtol=1e-3)
    stretched = replace(context, positions_T=context.positions_T * 3)
    assert (model(tokens_T, stretched.positions_T, stretched).hidden_TD - here).abs().max() > 0.05
