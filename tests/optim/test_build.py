"""From a real model to its optimizer: every parameter in one group, counts, and training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import selenite.optim.muon as muon_module
from selenite.errors import ConfigError
from selenite.model.config import PRESETS, preset
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import StatsRequest, packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.ops.newton_schulz import newton_schulz
from selenite.optim.build import OptimConfig, build_groups, build_optimizer
from selenite.optim.groups import describe
from selenite.optim.qk_clip import MaxLogit, qk_clip

TINY_MLA = {
    "vocab_size": 64, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "q_lora_rank": 16,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "ffn_hidden_size": 48, "max_positions": 64,
    "moe": {"num_experts": 4, "experts_per_token": 2, "expert_hidden_size": 24},
}  # fmt: skip
TINY_GQA = {
    "vocab_size": 64, "hidden_size": 32, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2,
    "ffn_hidden_size": 48, "max_positions": 64,
}  # fmt: skip
YARN = {"factor": 4.0, "original_max_positions": 16}


def tiny(kind: str, **changes: object) -> Transformer:
    base = {"mla": "nano", "gqa": "dense30m"}[kind]
    config = preset(base, **{**(TINY_MLA if kind == "mla" else TINY_GQA), **changes})
    return init_weights(Transformer(config), seed=0)


def backward(model: Transformer, seed: int = 0, checkpoint: bool = False) -> Tensor:
    """Gradients of one packed batch; returns the exact maximum of the logits, [L, N]."""
    context = packed_context([20, 12], StatsRequest(max_logit="exact"))
    tokens = torch.randint(64, (33,), generator=torch.Generator().manual_seed(seed))
    output = model(tokens[:-1], context.positions_T, context, checkpoint=checkpoint)
    (-token_logprobs(output.hidden_TD, model.head_weight, tokens[1:]).mean()).backward()
    assert output.max_logit_LN is not None
    return output.max_logit_LN


@pytest.mark.parametrize("name", list(PRESETS))
@pytest.mark.parametrize(
    "config", [OptimConfig(), OptimConfig(router="adamw"), OptimConfig(name="adamw")]
)
def test_every_parameter_is_in_exactly_one_group(name, config):
    with torch.device("meta"):
        model = Transformer(preset(name))
    groups = build_groups(model, config)
    grouped = [parameter for group in groups for parameter in group.names]
    assert sorted(grouped) == sorted(dict(model.named_parameters()))
    kinds = {parameter: group.kind for group in groups for parameter in group.names}
    for parameter, kind in kinds.items():
        is_vector = parameter.endswith("norm.weight")
        if config.name == "adamw" or is_vector or parameter in ("embed.weight", "head.weight"):
            assert kind == "adamw", parameter
        elif parameter.endswith("router.weight"):
            assert kind == config.router
        else:
            assert kind == "muon", parameter
    assert all(name in kinds for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # attention 5 in each of 3 layers, dense 3, routers 2, experts 2 x 4 x 3, shared 2 x 3
        ({}, 15 + 3 + 2 + 24 + 6),
        ({"router": "adamw"}, 15 + 3 + 24 + 6),
        # q_b: 4 heads; kv_b: 4 heads x 2 blocks; q_a, kv_a, o whole
        ({"per_head": True}, 3 * (4 + 8 + 3) + 3 + 2 + 24 + 6),
        ({"per_head": True, "split_kv_a": True}, 3 * (4 + 8 + 4) + 3 + 2 + 24 + 6),
        ({"name": "adamw"}, 0),
    ],
)
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_newton_schulz_sees_each_matrix_once_a_step(settings, expected, micro_batches, monkeypatch):
    """Counted where the matrices go in, not where the optimizer says so."""
    seen = []

    def spy(G_KAB: Tensor, *args: object) -> Tensor:
        seen.append(len(G_KAB))
        return newton_schulz(G_KAB, *args)

    monkeypatch.setattr(muon_module, "newton_schulz", spy)
    model = tiny("mla")
    config = OptimConfig(**settings)
    optimizer = build_optimizer(model, config)
    for seed in range(micro_batches):
        backward(model, seed)
    optimizer.step()
    assert sum(seen) == optimizer.num_orthogonalized == expected
    assert sum(group.num_matrices for group in build_groups(model, config)) == expected


def test_groups_carry_their_settings_and_norm_gains_decay():
    model = tiny("mla")
    config = OptimConfig(lr=0.01, embedding_lr_multiplier=3.0, embedding_weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    by_role = {group["role"]: group for group in optimizer.param_groups}
    assert by_role["norms"]["weight_decay"] == by_role["attention"]["weight_decay"] == 0.1
    assert by_role["norms"]["base_lr"] == by_role["experts"]["base_lr"] == 0.01
    assert by_role["embedding"]["base_lr"] == pytest.approx(0.03)
    assert by_role["head"]["weight_decay"] == 0.0
    gain = model.layers[0].ffn_norm.weight
    gain.grad = torch.zeros_like(gain)
    optimizer.step()
    assert torch.allclose(gain, torch.full_like(gain, 1 - 0.01 * 0.1))


def test_tied_embeddings_are_updated_once():
    model = tiny("gqa", tie_embeddings=True)
    names = [name for group in build_groups(model, OptimConfig()) for name in group.names]
    assert names.count("embed.weight") == 1
    assert "head.weight" not in names
    backward(model)
    build_optimizer(model, OptimConfig()).step()


def test_an_unknown_parameter_is_named():
    model = tiny("gqa")
    model.adapter = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match=r"'adapter\.weight' of shape \(4, 4\)"):
        build_optimizer(model, OptimConfig())


def test_a_known_name_of_the_wrong_shape_is_named():
    model = tiny("gqa")
    model.layers[1].ffn.gate.weight = nn.Parameter(torch.zeros(2, 3, 4))
    with pytest.raises(ConfigError, match=r"layers\.1\.ffn\.gate\.weight"):
        build_optimizer(model, OptimConfig())


def test_frozen_parameters_have_no_state_and_stay():
    model = tiny("gqa")
    model.embed.weight.requires_grad_(False)
    before = model.embed.weight.clone()
    backward(model)
    optimizer = build_optimizer(model, OptimConfig())
    optimizer.step()
    assert model.embed.weight not in optimizer.state
    assert torch.equal(model.embed.weight, before)


def test_table_counts_all_parameters():
    model = tiny("mla")
    text = describe(build_groups(model, OptimConfig()))
    assert "experts" in text
    assert "Muon" in text
    rows = [line.split("│") for line in text.splitlines() if line.startswith("│")]
    total = sum(int(row[5].replace(",", "")) for row in rows)
    assert total == sum(param.numel() for param in model.parameters())


@pytest.mark.parametrize("name", ["muonclip", "adamw"])
@pytest.mark.parametrize("kind", ["mla", "gqa"])
def test_a_batch_is_learned(kind, name):
    model = tiny(kind)
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=1e-2, per_head=True))
    tokens = torch.randint(64, (33,), generator=torch.Generator().manual_seed(0))
    context = packed_context([20, 12])
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        output = model(tokens[:-1], context.positions_T, context)
        loss = -token_logprobs(output.hidden_TD, model.head_weight, tokens[1:]).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("mla", {}), ("mla", {"q_lora_rank": None}), ("mla", {"yarn": YARN})]
    + [("gqa", {"num_kv_heads": m}) for m in (1, 2, 4)],
)
def test_clip_brings_the_models_own_statistic_to_the_bound(kind, changes):
    """The first layer, whose input no clip changes: its heads end at min(S, tau) exactly."""
    model = tiny(kind, **changes)
    with torch.no_grad():  # from weights as initialised, logits are near zero
        for name, param in model.named_parameters():
            if name.endswith((".q.weight", ".q_b.weight", ".k.weight", ".kv_b.weight")):
                param.mul_(40)
    before = backward(model)
    tau = before[0].median().item()
    assert 0 < tau < before[0].max()
    report = qk_clip(model, before, tau)
    assert report.num_clipped == (before > tau).sum()
    after = backward(model)
    torch.testing.assert_close(after[0], before[0].clamp(max=tau), rtol=1e-5, atol=0)


def test_statistic_is_the_same_with_recomputation_and_over_micro_batches():
    model = tiny("mla")
    plain, recomputed = MaxLogit(), MaxLogit()
    for seed in range(3):
        plain.update(backward(model, seed))
        recomputed.update(backward(model, seed, checkpoint=True))
    expected = torch.stack([backward(model, seed) for seed in range(3)]).amax(0)
    assert torch.equal(plain.take(), expected)
    assert torch.equal(recomputed.take(), expected)


@pytest.mark.parametrize("kind", ["mla", "gqa"])
def test_one_by_eight_and_four_by_two_micro_batches_give_one_update(kind):
    """The real model's gradients, summed over eight documents together or two at a time."""
    tokens_BT = torch.randint(64, (8, 49), generator=torch.Generator().manual_seed(0))

    def update(num: int) -> Tensor:
        model = tiny(kind)
        start = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        optimizer = build_optimizer(model, OptimConfig(ns_dtype="float32"))
        for batch in tokens_BT.chunk(num):
            context = packed_context([48] * len(batch))
            output = model(batch[:, :-1].reshape(-1), context.positions_T, context)
            targets = batch[:, 1:].reshape(-1)
            logprobs = token_logprobs(output.hidden_TD, model.head_weight, targets)
            (-logprobs.sum() / (8 * 48)).backward()
        optimizer.step()
        return nn.utils.parameters_to_vector(model.parameters()).detach() - start

    expected, actual = update(1), update(4)
    assert (actual - expected).norm() < 1e-5 * expected.norm()


def test_update_scale_reaches_the_optimizer():
    """A tall matrix, no decay: the two factors, 0.2 sqrt(A) and sqrt(A / B), on one direction."""
    moved = {}
    for scale in ("rms", "original"):
        model = tiny("gqa")
        weight = model.layers[0].ffn.gate.weight
        start = weight.detach().clone()
        backward(model)
        config = OptimConfig(update_scale=scale, weight_decay=0.0, ns_dtype="float32")
        build_optimizer(model, config).step()
        moved[scale] = weight.detach() - start
    A, B = weight.shape
    assert A > B
    ratio = (A / B) ** 0.5 / (0.2 * A**0.5)
    # Differences of weights of size 1 and updates of size 1e-3: float32 rounding is 1e-4 of them.
    torch.testing.assert_close(moved["original"], ratio * moved["rms"], rtol=1e-3, atol=1e-6)
