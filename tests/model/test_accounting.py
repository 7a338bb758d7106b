"""Counts against real modules and against what is published."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from selenite.model.accounting import (
    cache_bytes_per_token,
    count_parameters,
    forward_flops_per_token,
    matrix_parameters,
    nextn_flops_per_token,
    training_flops_per_token,
)
from selenite.model.cache import EntryCache
from selenite.model.config import PRESETS, ModelConfig, preset
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.moe import gate_weights, select_experts
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

CONFIGS = [
    *(pytest.param(preset(name), id=name) for name in PRESETS),
    pytest.param(k2_config(), id="tiny k2"),
    pytest.param(k2_config(q_lora_rank=None, tie_embeddings=True), id="no query LoRA, tied"),
    pytest.param(llama_config(head_dim=24), id="tiny llama"),
    pytest.param(k2_config(num_nextn_predict_layers=2), id="two extra layers"),
]


def on_meta(config: ModelConfig) -> dict[str, int]:
    with torch.device("meta"):
        model = Transformer(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("config", CONFIGS)
def test_counts_equal_the_modules_parameters(config: ModelConfig) -> None:
    sizes = on_meta(config)
    extra = [sizes.pop(name) for name in list(sizes) if name.startswith("nextn.")]

    def of(*parts: str) -> int:
        return sum(size for name, size in sizes.items() if any(part in name for part in parts))

    count = count_parameters(config)
    assert count.nextn == sum(extra)
    assert count.total == sum(sizes.values())
    assert count.embedding == sizes["embed.weight"]
    assert count.head == sizes.get("head.weight", 0)
    assert count.attention == of(".attention.")
    assert count.routers == of(".router.")
    assert count.routed_experts == of(".experts.")
    assert count.shared_experts == of(".shared.")
    assert count.dense_ffn == of(".ffn.gate.", ".ffn.up.", ".ffn.down.")
    assert count.norms == of(".attention_norm.", ".ffn_norm.") + sizes["norm.weight"]
    assert count.without_embeddings == count.total - count.embedding - count.head


def test_published_counts() -> None:
    moonlight = count_parameters(preset("moonlight-16b-a3b"))
    assert moonlight.without_embeddings == 15_289_019_904
    assert moonlight.active_without_embeddings == 2_243_685_888
    assert moonlight.total / 1e9 == pytest.approx(15.96, abs=0.005)
    assert moonlight.active / 1e9 == pytest.approx(2.91, abs=0.005)
    k2 = count_parameters(preset("kimi-k2"))
    assert k2.total / 1e9 == pytest.approx(1026.4, abs=0.05)
    assert k2.active / 1e9 == pytest.approx(32.86, abs=0.005)
    assert k2.active_without_embeddings / 1e9 == pytest.approx(30.5, abs=0.05)
    assert count_parameters(preset("smollm2-135m")).total == 134_515_008


def test_published_counts_of_deepseek_v3() -> None:
    """README_WEIGHTS.md: 671B, and 11.5B of the extra layer without its copies of embedding and
    head, which leaves out the projection of 0.1B."""
    config, main = preset("deepseek-v3"), preset("deepseek-v3", num_nextn_predict_layers=0)
    assert config.num_nextn_predict_layers == 1
    count, bare = count_parameters(config), count_parameters(main)
    assert count.total / 1e9 == pytest.approx(671.0, abs=0.05)
    assert (count.total, count.active) == (bare.total, bare.active)
    assert (count.nextn - 2 * 7168**2) / 1e9 == pytest.approx(11.5, abs=0.05)
    assert bare.nextn == 0
    assert forward_flops_per_token(config, 100) == forward_flops_per_token(main, 100)
    assert training_flops_per_token(config, 100) == training_flops_per_token(main, 100)


def test_flops_of_extra_layers_by_hand() -> None:
    """Each multiplies by its own matrices, but for the experts that it misses, and by the head."""
    config = k2_config(num_nextn_predict_layers=2)
    sizes = {name: size for name, size in on_meta(config).items() if name.startswith("nextn.")}
    matrices = sum(size for name, size in sizes.items() if "norm" not in name)
    missed = sum(size for name, size in sizes.items() if ".experts." in name) * 6 // 8
    products = 2 * (matrices - missed + 2 * 96 * 64)
    assert nextn_flops_per_token(config, 0) == products
    assert nextn_flops_per_token(config, 5) == products + 5 * 2 * 2 * 4 * (24 + 16)
    assert nextn_flops_per_token(k2_config(), 5) == nextn_flops_per_token(llama_config(), 5) == 0


def test_matrix_parameters_by_hand() -> None:
    """One token of the tiny K2: everything but norms, embedding and the experts it misses."""
    config = k2_config()
    sizes = on_meta(config)
    matrices = sum(size for name, size in sizes.items() if "norm" not in name)
    missed = sum(size for name, size in sizes.items() if ".experts." in name) * 6 // 8
    assert matrix_parameters(config) == matrices - missed - sizes["embed.weight"]
    tied = k2_config(tie_embeddings=True)  # a tied head is multiplied all the same
    assert matrix_parameters(tied) == matrix_parameters(config)


def test_flops_count_what_torch_multiplies() -> None:
    """torch's own counter over a dense model's products; attention is added by hand."""
    config, T = llama_config(), 16
    model, context = tiny_model(config), packed_context([T])
    with FlopCounterMode(display=False) as counter:
        model.logits(model(random_tokens(T, 96), context.positions_T, context).hidden_TD)
    attention = ("scaled_dot_product", "_flash")
    products = sum(
        flops
        for operator, flops in counter.get_flop_counts()["Global"].items()
        if not any(part in str(operator) for part in attention)
    )
    assert products == T * forward_flops_per_token(config, 0)
    width = config.num_layers * config.num_heads * 2 * (16 + 16)
    assert forward_flops_per_token(config, 7.5) - forward_flops_per_token(config, 0) == width * 7.5
    assert training_flops_per_token(config, 16) == 3 * forward_flops_per_token(config, 8)


@pytest.mark.parametrize("layout", ["latent", "expanded"])
@pytest.mark.parametrize(
    "config",
    [k2_config(), llama_config(), k2_config(num_nextn_predict_layers=2)],
    ids=["k2", "llama", "extra"],
)
def test_cache_bytes_equal_the_caches(config: ModelConfig, layout: str) -> None:
    cache = EntryCache(config, 1, torch.bfloat16, layout)  # type: ignore[arg-type]
    layers = range(config.num_layers + config.num_nextn_predict_layers)
    held = sum(t.nbytes for layer in layers for t in cache.read(layer))
    assert cache_bytes_per_token(config, layout) == held  # type: ignore[arg-type]


def test_cache_bytes_of_kimi_k2() -> None:
    """576 values a layer against 64 heads of 192 + 128."""
    k2 = preset("kimi-k2")
    assert cache_bytes_per_token(k2) == 61 * 576 * 2
    assert cache_bytes_per_token(k2, "expanded") == 61 * 64 * 320 * 2


@pytest.mark.parametrize(
    ("num_experts", "chosen", "published", "tolerance"),
    [(64, 6, 2.446, 0.003), (384, 8, 2.827, 0.003), (8, 2, 1.409, 0.003), (16, 4, 1.991, 0.003)],
)
def test_scaling_factor_restores_the_norm_of_the_gates(
    num_experts: int, chosen: int, published: float, tolerance: float
) -> None:
    """E[1 / |p|] of renormalised top-k sigmoid gates of Gaussian logits, by Monte Carlo.

    20,000 tokens; 1/|p| has a deviation of 0.01 to 0.05, so the standard error is below 4e-4.
    """
    generator = torch.Generator().manual_seed(0)
    scores_TE = torch.randn(20_000, num_experts, generator=generator).sigmoid()
    ids_TK = select_experts(scores_TE, torch.zeros(num_experts), chosen, 1, 1)
    gates_TK = gate_weights(scores_TE, ids_TK, normalize=True, scaling=1.0)
    assert (1 / gates_TK.norm(dim=-1)).mean().item() == pytest.approx(published, abs=tolerance)
