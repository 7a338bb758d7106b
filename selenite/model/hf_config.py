"""A model's dimensions as Hugging Face's ``config.json``, and back.

Keys follow the published DeepSeek-V3 and Llama configs. An option that the model does not
implement is refused by name, never ignored.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from selenite.errors import CheckpointError
from selenite.model.config import ModelConfig, MoEConfig
from selenite.model.fp8 import BLOCK

_ONLY = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}
"""Options of ``config.json`` of which the model implements one value."""
_ONLY_IN_ROPE = {"attention_factor": None, "truncate": True}
"""Likewise, of its rotary scaling."""


def to_hf_config(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` of a DeepSeek-V3 or Llama model.

    Raises:
        CheckpointError: a dimension that the format cannot say, so that others would read the
            model wrongly.
    """
    if config.attention == "mla" and config.lora_norm_eps != 1e-6:
        raise CheckpointError(
            f"lora_norm_eps={config.lora_norm_eps}: config.json cannot say it and readers assume "
            "1e-6; train with model.lora_norm_eps=1e-6"
        )
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.ffn_hidden_size,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.init_std,
        "hidden_act": "silu",
        "attention_bias": False,
        "torch_dtype": "float32",
    }
    if config.moba is not None:  # a key of our own: others read the model with full attention
        common["moba"] = config.moba.model_dump(mode="json")
    if config.yarn is not None:
        common["rope_scaling"] = {
            "type": "yarn",
            "rope_type": "yarn",
            "factor": config.yarn.factor,
            "original_max_position_embeddings": config.yarn.original_max_positions,
            "beta_fast": config.yarn.beta_fast,
            "beta_slow": config.yarn.beta_slow,
            "mscale": config.yarn.mscale,
            "mscale_all_dim": config.yarn.mscale_all_dim,
        }
    if config.attention == "gqa":
        return common | {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "head_dim": config.qk_dim,
            "mlp_bias": False,
        }
    common |= {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": config.kv_lora_rank,
        "qk_nope_head_dim": config.qk_nope_head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "v_head_dim": config.v_head_dim,
        "rope_interleave": config.is_rope_interleaved,
        "num_nextn_predict_layers": config.num_nextn_predict_layers,
    }
    return common | _hf_moe_config(config)


def _hf_moe_config(config: ModelConfig) -> dict[str, Any]:
    # A model without experts is one whose layers all come before the first with experts.
    moe = config.moe or MoEConfig(
        num_experts=2,
        experts_per_token=1,
        expert_hidden_size=8,
        first_dense_layers=config.num_layers,
    )
    return {
        "n_routed_experts": moe.num_experts,
        "num_experts_per_tok": moe.experts_per_token,
        "moe_intermediate_size": moe.expert_hidden_size,
        "n_shared_experts": moe.num_shared_experts,
        "n_group": moe.num_groups,
        "topk_group": moe.topk_groups,
        "routed_scaling_factor": moe.routed_scaling_factor,
        "norm_topk_prob": moe.normalize_weights,
        "first_k_dense_replace": moe.first_dense_layers,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
    }


def from_hf_config(hf: dict[str, Any], source: str = "config.json") -> ModelConfig:
    """The dimensions in a ``config.json``.

    Raises:
        CheckpointError: an architecture or option that the model does not implement, or a
            missing key.
    """
    if not isinstance(hf, dict):
        raise CheckpointError(f"{source} is not a JSON object")
    kind = hf.get("model_type")
    try:
        if kind == "llama":
            return _from_llama(hf)
        if kind in ("deepseek_v3", "kimi_k2"):
            return _from_deepseek(hf)
    except KeyError as missing:
        raise CheckpointError(f"{source} lacks the key {missing}") from missing
    except ValidationError as refused:
        raise CheckpointError(f"{source} is not a model's config: {refused}") from refused
    except (TypeError, AttributeError) as mistyped:  # a table or a number where it is neither
        raise CheckpointError(
            f"{source} has a value of the wrong kind ({mistyped}); copy or download it again"
        ) from mistyped
    raise CheckpointError(
        f"{source}: model_type={kind!r} is not supported; there are llama, deepseek_v3, kimi_k2"
    )


def _common(hf: dict[str, Any]) -> dict[str, Any]:
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    for options, only in ((hf, _ONLY), (rope, _ONLY_IN_ROPE)):
        for key, value in only.items():
            if options.get(key, value) != value:
                raise CheckpointError(
                    f"config.json: {key}={options[key]!r} is not supported, only {value}"
                )
    quantised = hf.get("quantization_config") or {}
    if quantised.get("quant_method", "fp8") != "fp8" or quantised.get(
        "weight_block_size", [BLOCK, BLOCK]
    ) != [BLOCK, BLOCK]:
        raise CheckpointError(
            f"config.json: quant_method={quantised.get('quant_method')!r} with blocks of "
            f"{quantised.get('weight_block_size')} is not supported, only fp8 with blocks of "
            f"{BLOCK} x {BLOCK}; convert an unquantised checkpoint"
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "yarn"):
        raise CheckpointError(f"config.json: rope_type={kind!r} is not supported; only yarn is")
    yarn = None
    if kind == "yarn":
        yarn = {
            "factor": rope["factor"],
            "original_max_positions": rope["original_max_position_embeddings"],
            "beta_fast": rope.get("beta_fast", 32.0),
            "beta_slow": rope.get("beta_slow", 1.0),
            "mscale": rope.get("mscale", 1.0),
            "mscale_all_dim": rope.get("mscale_all_dim", 0.0),
        }
    return {
        "vocab_size": hf["vocab_size"],
        "hidden_size": hf["hidden_size"],
        "num_layers": hf["num_hidden_layers"],
        "num_heads": hf["num_attention_heads"],
        "ffn_hidden_size": hf["intermediate_size"],
        "max_positions": hf["max_position_embeddings"],
        "norm_eps": hf["rms_norm_eps"],
        "rope_theta": hf.get("rope_theta") or rope["rope_theta"],
        "yarn": yarn,
        "moba": hf.get("moba"),
        "num_nextn_predict_layers": hf.get("num_nextn_predict_layers") or 0,
        "tie_embeddings": hf.get("tie_word_embeddings", False),
        "init_std": hf.get("initializer_range", 0.02),
    }


def _from_llama(hf: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        **_common(hf),
        attention="gqa",
        num_kv_heads=hf.get("num_key_value_heads"),
        head_dim=hf.get("head_dim"),
    )


def _from_deepseek(hf: dict[str, Any]) -> ModelConfig:
    has_experts = hf["first_k_dense_replace"] < hf["num_hidden_layers"]
    moe = {
        "num_experts": hf["n_routed_experts"],
        "experts_per_token": hf["num_experts_per_tok"],
        "expert_hidden_size": hf["moe_intermediate_size"],
        "num_shared_experts": hf["n_shared_experts"] or 0,
        "num_groups": hf.get("n_group", 1),
        "topk_groups": hf.get("topk_group", 1),
        "routed_scaling_factor": hf["routed_scaling_factor"],
        "normalize_weights": hf["norm_topk_prob"],
        "first_dense_layers": hf["first_k_dense_replace"],
    }
    return ModelConfig(
        **_common(hf),
        attention="mla",
        q_lora_rank=hf["q_lora_rank"],
        kv_lora_rank=hf["kv_lora_rank"],
        qk_nope_head_dim=hf["qk_nope_head_dim"],
        qk_rope_head_dim=hf["qk_rope_head_dim"],
        v_head_dim=hf["v_head_dim"],
        rope_interleaved=None if hf.get("rope_interleave", True) else False,
        moe=moe if has_experts else None,
    )
