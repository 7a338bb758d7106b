"""QK-Clip against attention written out by hand: each head's maximum is recomputed after it.

The hand-written attention reads nothing but the named weights; rotations, shared keys and groups
are spelled out, so that what the clip does to a head's logits is measured and not assumed.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.optim.qk_clip import MaxLogit, clip_factors, qk_clip
from tests.fixtures.tiny import k2_config, tiny_model

D, T, LAYERS, HEADS = 24, 10, 2, 4
NOPE, ROPE, V, RANK, Q_RANK = 6, 4, 5, 8, 12
YARN_SOFTMAX = 1.8133  # K2's multiplier of the logits

MLA = {"attention": "mla", "kv_lora_rank": RANK, "v_head_dim": V}
MLA |= {"qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE}
KINDS: dict[str, dict[str, object]] = {
    "mla": MLA,
    "mla-q-lora": {**MLA, "q_lora_rank": Q_RANK},
    "gqa": {"attention": "gqa", "num_kv_heads": 2, "head_dim": 6},
    "mha": {"attention": "gqa", "num_kv_heads": HEADS, "head_dim": 6},
}


def config_of(kind: str) -> ModelConfig:
    sizes = {"vocab_size": 16, "hidden_size": D, "num_layers": LAYERS, "num_heads": HEADS}
    return ModelConfig.model_validate({**sizes, "ffn_hidden_size": 8, **KINDS[kind]})


def shapes_of(config: ModelConfig, bias: bool = False) -> dict[str, tuple[int, ...]]:
    qk = HEADS * config.qk_dim
    if config.attention == "gqa":
        kv = config.kv_heads * config.qk_dim
        one = {"q": (qk, D), "k": (kv, D), "v": (kv, D)}
    else:
        one = {"kv_a": (RANK + ROPE, D), "kv_b": (HEADS * (NOPE + V), RANK)}
        lora = {"q_a": (Q_RANK, D), "q_b": (qk, Q_RANK)}
        one |= lora if config.q_lora_rank else {"q": (qk, D)}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(LAYERS):
        for name, shape in one.items():
            shapes[f"layers.{layer}.attention.{name}.weight"] = shape
            if bias and name in ("q", "k"):
                shapes[f"layers.{layer}.attention.{name}.bias"] = shape[:1]
    return shapes


def rotate(x_TNH: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x_TNH.unflatten(-1, (-1, 2)).contiguous())
    angle = torch.arange(T)[:, None, None] / 50 ** torch.linspace(0, 1, pairs.shape[-1])
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def attend_by_hand(model: nn.Module, x_TD: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Causal logits [N, T, T] (scaled) and attention output [N, T, V] of one layer, float64."""
    config: ModelConfig = model.config
    names = f"layers.{layer}.attention."
    params = {
        name.removeprefix(names): param.detach().double()
        for name, param in model.named_parameters()
        if name.startswith(names)
    }

    def project(name: str, x: Tensor) -> Tensor:
        return x @ params[name + ".weight"].mT + params.get(name + ".bias", 0.0)

    x = x_TD.double()
    if config.attention == "gqa":
        group = HEADS // config.kv_heads
        q = rotate(project("q", x).view(T, HEADS, -1))
        k = rotate(project("k", x).view(T, config.kv_heads, -1)).repeat_interleave(group, 1)
        v = project("v", x).view(T, config.kv_heads, -1).repeat_interleave(group, 1)
    else:
        q = project("q_b", project("q_a", x)) if config.q_lora_rank else project("q", x)
        q_nope, q_rope = q.view(T, HEADS, -1).split([NOPE, ROPE], -1)
        latent, k_rope = project("kv_a", x).split([RANK, ROPE], -1)
        k_nope, v = project("kv_b", latent).view(T, HEADS, -1).split([NOPE, V], -1)
        q = torch.cat([q_nope, rotate(q_rope)], -1)
        k = torch.cat([k_nope, rotate(k_rope[:, None]).expand(-1, HEADS, -1)], -1)
    scale = config.qk_dim**-0.5 * YARN_SOFTMAX
    logits = torch.einsum("tnh,snh->nts", q, k) * scale
    logits = logits.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf)
    return logits, logits.softmax(-1) @ v.transpose(0, 1)


def max_logits(model: nn.Module, x_TD: Tensor) -> Tensor:
    layers = [attend_by_hand(model, x_TD, layer)[0].amax((1, 2)) for layer in range(LAYERS)]
    return torch.stack(layers)


@pytest.fixture
def x_TD() -> Tensor:
    return torch.randn(T, D, generator=torch.Generator().manual_seed(1)) * 3


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: param.detach().clone() for name, param in model.named_parameters()}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("kind", "mode"),
    [("mla", "query"), ("mla-q-lora", "query")]
    + [(kind, mode) for kind in ("gqa", "mha") for mode in ("query", "balanced")],
)
def test_every_head_ends_at_the_bound_and_no_other_moves(kind, mode, bias, named_module, x_TD):
    config = config_of(kind)
    model = named_module(config, shapes_of(config, bias and config.attention == "gqa"))
    before, old = max_logits(model, x_TD), snapshot(model)
    logits, outputs = zip(
        *(attend_by_hand(model, x_TD, layer) for layer in range(LAYERS)), strict=True
    )
    tau = before.flatten().sort().values[LAYERS * HEADS // 2 - 1].item() * 1.0001
    report = qk_clip(model, before.float(), tau, gqa=mode)

    after = max_logits(model, x_TD)
    # Weights are float32: factors and products are rounded at 6e-8 each.
    torch.testing.assert_close(after, before.clamp(max=tau), rtol=1e-5, atol=0)
    assert report.num_clipped == (before > tau).sum() == LAYERS * HEADS // 2
    assert report.min_gamma == pytest.approx(tau / before.max().item(), rel=1e-5)
    assert report.max_logit == pytest.approx(before.max().item(), rel=1e-6)
    for layer in range(LAYERS):
        new_logits, new_output = attend_by_hand(model, x_TD, layer)
        unclipped = before[layer] <= tau
        # balanced: the group's key shrinks and the sibling's query grows by the same factor
        exact = {"rtol": 1e-5, "atol": 1e-5} if mode == "balanced" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(new_output[unclipped], outputs[layer][unclipped], **exact)
        torch.testing.assert_close(new_logits[unclipped], logits[layer][unclipped], **exact)
    untouched = {"kv_a", "q_a", "v"} | ({"k"} if mode == "query" else set())
    for name, param in model.named_parameters():
        if name.split(".")[-2] in untouched:
            assert torch.equal(param, old[name]), name
        if name.endswith("kv_b.weight"):
            values = [w.view(HEADS, NOPE + V, RANK)[:, NOPE:] for w in (param, old[name])]
            assert torch.equal(*values)


def test_group_mode_scales_the_whole_group_by_its_strongest_factor(named_module, x_TD):
    config = config_of("gqa")
    model = named_module(config, shapes_of(config))
    before = max_logits(model, x_TD)
    tau = before.flatten().median().item()
    qk_clip(model, before.float(), tau, gqa="group")
    strongest = (tau / before.clamp(min=tau)).view(LAYERS, 2, 2).amin(-1)
    expected = before * strongest.repeat_interleave(2, dim=1)
    torch.testing.assert_close(max_logits(model, x_TD), expected, rtol=1e-5, atol=0)


def test_multi_head_balanced_shares_the_square_root(named_module, x_TD):
    """K2's rule for MHA: both sides take the root of gamma."""
    config = config_of("mha")
    model = named_module(config, shapes_of(config))
    old = snapshot(model)
    before = torch.full((LAYERS, HEADS), 1.0)
    before[1, 2] = 400.0
    qk_clip(model, before, 100.0, gqa="balanced")
    for name in ("q", "k"):
        full = f"layers.1.attention.{name}.weight"
        new, was = (x.view(HEADS, 6, D) for x in (dict(model.named_parameters())[full], old[full]))
        torch.testing.assert_close(new[2], was[2] * 0.5)
        assert torch.equal(new[[0, 1, 3]], was[[0, 1, 3]])


@pytest.mark.parametrize("kind", list(KINDS))
def test_clipping_twice_is_clipping_once(kind, named_module, x_TD):
    config = config_of(kind)
    model = named_module(config, shapes_of(config))
    tau = max_logits(model, x_TD).flatten().median().item()
    qk_clip(model, max_logits(model, x_TD).float(), tau)
    once = snapshot(model)
    qk_clip(model, max_logits(model, x_TD).float(), tau)
    for name, param in model.named_parameters():
        # The recomputed maximum is tau up to float32 rounding.
        torch.testing.assert_close(param.detach(), once[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("value", [100.0, 99.0, 0.0, -0.0, -50.0, -math.inf, math.inf, math.nan])
def test_nothing_moves_at_or_below_the_bound_nor_for_what_is_not_a_number(
    kind, value, named_module
):
    config = config_of(kind)
    model = named_module(config, shapes_of(config))
    old = snapshot(model)
    report = qk_clip(model, torch.full((LAYERS, HEADS), value), 100.0)
    assert report.num_clipped == 0
    assert report.min_gamma == 1.0
    assert report.num_nonfinite == (LAYERS * HEADS if value in (math.inf,) or value != value else 0)
    for name, param in model.named_parameters():
        assert torch.equal(param, old[name])


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=8))
def test_factors_are_positive_and_exact(values):
    gamma = clip_factors(torch.tensor(values), 30.0)
    assert ((gamma > 0) & (gamma <= 1)).all()
    for value, factor in zip(values, gamma.tolist(), strict=True):
        expected = 30.0 / value if 30.0 < value < math.inf else 1.0
        assert factor == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=1))
def test_maximum_over_micro_batches_is_that_of_the_whole_batch(rows):
    batches = [torch.tensor([row]) for row in rows]
    maximum = MaxLogit()
    for batch in batches:
        maximum.update(batch)
    maximum.update(batches[-1])  # recomputed activations report the same values again
    assert torch.equal(maximum.take(), torch.cat(batches).amax(0, keepdim=True))
    maximum.update(torch.tensor([[-5.0, -5.0, -5.0]]))
    assert torch.equal(maximum.take(), torch.tensor([[-5.0, -5.0, -5.0]]))  # fresh after take()


def test_extra_prediction_layers_come_behind_the_models():
    """A head of the second extra layer is clipped, in that layer alone."""
    model = tiny_model(k2_config(num_nextn_predict_layers=2))
    config, old = model.config, snapshot(model)
    max_logit_LN = torch.ones(config.num_layers + 2, config.num_heads)
    max_logit_LN[-1, 1] = 200.0
    assert qk_clip(model, max_logit_LN, 100.0).num_clipped == 1
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, old[name])}
    prefix = "nextn.1.block.attention"
    assert changed == {f"{prefix}.q_b.weight", f"{prefix}.kv_b.weight"}


def test_refuses_a_bound_that_is_not_positive(named_module):
    config = config_of("gqa")
    model = named_module(config, shapes_of(config))
    with pytest.raises(ConfigError, match="tau=0"):
        qk_clip(model, torch.ones(LAYERS, HEADS), 0.0)
