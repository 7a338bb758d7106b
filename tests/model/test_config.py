"""Model configs: what is refused, and the presets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from selenite.model.config import PRESETS, ModelConfig, MoEConfig, preset
from selenite.model.transformer import Transformer
from tests.fixtures.tiny import k2_config, llama_config

MOE = {"num_experts": 8, "experts_per_token": 2, "expert_hidden_size": 32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts_per_token": 9}, "experts_per_token=9 exceeds num_experts=8"),
        ({"num_groups": 3}, "num_experts=8 must be a multiple of num_groups=3"),
        ({"num_groups": 2, "topk_groups": 3}, "topk_groups=3 exceeds num_groups=2"),
        ({"num_groups": 8, "topk_groups": 4}, "needs at least 2 of the 8 experts"),
        (
            {"num_groups": 4, "topk_groups": 1, "experts_per_token": 3},
            "experts_per_token=3 exceeds the 2 experts in topk_groups=1",
        ),
        ({"experts": 8}, "Extra inputs are not permitted"),
    ],
)
def test_refused_experts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoEConfig.model_validate(MOE | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"v_head_dim": -4}, "greater than or equal to 0"),
        ({"kv_lora_rank": 0}, "kv_lora_rank=0: attention='mla' needs it set"),
        ({"v_head_dim": 0}, "v_head_dim=0: attention='mla' needs it set"),
        ({"num_kv_heads": 2}, "belong to attention='gqa'"),
        ({"head_dim": 16}, "belong to attention='gqa'"),
        ({"q_lora_rank": 0}, "greater than 0"),
        ({"qk_rope_head_dim": 7}, "rotary width 7 must be even"),
        ({"vocab_size": 0}, "greater than 0"),
        ({"rope_theta": 0.0}, "greater than 1"),
        ({"yarn": {"factor": 1.0, "original_max_positions": 64}}, "greater than 1"),
        ({"norm_eps": -1.0}, "greater than 0"),
    ],
)
def test_refused_latent_attention(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        k2_config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_kv_heads": 3}, "num_heads=4 must be a multiple of num_kv_heads=3"),
        ({"num_kv_heads": 0}, "greater than 0"),
        ({"num_kv_heads": -2}, "greater than 0"),
        ({"head_dim": 0}, "greater than 0"),
        ({"hidden_size": 66}, "hidden_size=66 is not a multiple of num_heads=4; set head_dim"),
        ({"kv_lora_rank": 8}, "belong to attention='mla'"),
        ({"q_lora_rank": 8}, "belong to attention='mla'"),
        ({"qk_nope_head_dim": 8}, "belong to attention='mla'"),
        ({"v_head_dim": 8}, "belong to attention='mla'"),
        ({"head_dim": 15}, "rotary width 15 must be even"),
    ],
)
def test_refused_grouped_query_attention(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        llama_config(**changes)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build(name: str) -> None:
    """On the meta device, where a trillion parameters take no memory."""
    config = preset(name)
    with torch.device("meta"):
        model = Transformer(config)
    assert len(model.layers) == config.num_layers
    routed = [hasattr(layer.ffn, "router") for layer in model.layers]
    assert routed == [config.is_moe_layer(i) for i in range(config.num_layers)]


def test_presets_are_the_published_models() -> None:
    k2, v3, moonlight = (preset(n) for n in ("kimi-k2", "deepseek-v3", "moonlight-16b-a3b"))
    assert k2.moe is not None
    assert v3.moe is not None
    assert moonlight.moe is not None
    assert (k2.moe.num_experts, k2.moe.experts_per_token, k2.num_heads) == (384, 8, 64)
    assert (v3.moe.num_groups, v3.moe.topk_groups, v3.moe.first_dense_layers) == (8, 4, 3)
    assert (moonlight.q_lora_rank, moonlight.moe.num_shared_experts) == (None, 2)
    assert moonlight.norm_eps == 1e-5
    assert moonlight.lora_norm_eps == 1e-6  # the published code fixes it, whatever rms_norm_eps


def test_preset_with_changes_and_unknown_preset() -> None:
    assert preset("nano", num_layers=2).num_layers == 2
    assert preset("nano").num_layers == PRESETS["nano"]["num_layers"]
    with pytest.raises(ValueError, match=r"'nanoo' is unknown; there are: nano, mini"):
        preset("nanoo")


def test_derived_dimensions() -> None:
    mla, gqa = k2_config(), llama_config()
    assert (mla.qk_dim, mla.v_dim, mla.rope_dim, mla.kv_heads) == (24, 16, 8, 4)
    assert (gqa.qk_dim, gqa.v_dim, gqa.rope_dim, gqa.kv_heads) == (16, 16, 16, 2)
    assert llama_config(num_kv_heads=None).kv_heads == 4
    assert llama_config(head_dim=10, hidden_size=66).qk_dim == 10
    assert [mla.is_moe_layer(i) for i in range(3)] == [False, True, True]
    with pytest.raises(ValidationError):
        ModelConfig(vocab_size=1)
