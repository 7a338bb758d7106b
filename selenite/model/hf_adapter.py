"""Our models as Hugging Face directories and back: ``config.json`` and safetensors.

Names follow the published DeepSeek-V3 and Llama checkpoints: one tensor an expert on disk, one
stacked tensor for all experts here. Every tensor is accounted for: a missing, unexpected or
misshapen one is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer

_EXPERT_WEIGHTS = ("gate", "up", "down")


def hf_names(config: ModelConfig) -> dict[str, list[str]]:
    """Our name of each tensor to its names on disk; several names are stacked, one an expert."""
    names = {"embed.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config.tie_embeddings:
        names["head.weight"] = ["lm_head.weight"]
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}", f"model.layers.{i}"
        names[f"{ours}.attention_norm.weight"] = [f"{theirs}.input_layernorm.weight"]
        names[f"{ours}.ffn_norm.weight"] = [f"{theirs}.post_attention_layernorm.weight"]
        for part, hf_part in _attention_parts(config).items():
            names[f"{ours}.attention.{part}.weight"] = [f"{theirs}.self_attn.{hf_part}.weight"]
        if config.moe is None or not config.is_moe_layer(i):
            for part in _EXPERT_WEIGHTS:
                names[f"{ours}.ffn.{part}.weight"] = [f"{theirs}.mlp.{part}_proj.weight"]
            continue
        names[f"{ours}.ffn.router.weight"] = [f"{theirs}.mlp.gate.weight"]
        names[f"{ours}.ffn.router.bias"] = [f"{theirs}.mlp.gate.e_score_correction_bias"]
        for part in _EXPERT_WEIGHTS:
            names[f"{ours}.ffn.experts.{part}"] = [
                f"{theirs}.mlp.experts.{e}.{part}_proj.weight"
                for e in range(config.moe.num_experts)
            ]
            if config.moe.num_shared_experts:
                names[f"{ours}.ffn.shared.{part}.weight"] = [
                    f"{theirs}.mlp.shared_experts.{part}_proj.weight"
                ]
    return names


def _attention_parts(config: ModelConfig) -> dict[str, str]:
    if config.attention == "gqa":
        return {part: f"{part}_proj" for part in ("q", "k", "v", "o")}
    parts = {"kv_a": "kv_a_proj_with_mqa", "kv_a_norm": "kv_a_layernorm", "kv_b": "kv_b_proj"}
    if config.q_lora_rank is None:
        query = {"q": "q_proj"}
    else:
        query = {"q_a": "q_a_proj", "q_a_norm": "q_a_layernorm", "q_b": "q_b_proj"}
    return {**query, **parts, "o": "o_proj"}


def to_hf_config(config: ModelConfig) -> dict[str, Any]:
    """``config.json`` of a DeepSeek-V3 or Llama model."""
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
        if config.rope_interleaved:
            raise CheckpointError(
                "rope_interleaved=true: Hugging Face's Llama rotates the halves of a head, so it "
                "would read this model wrongly; train with model.rope_interleaved=false"
            )
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
        "rope_interleave": config.rope_interleaved,
        "num_nextn_predict_layers": 0,
    }
    return common | _hf_moe_config(config)


def _hf_moe_config(config: ModelConfig) -> dict[str, Any]:
    moe = config.moe
    if moe is None:
        raise CheckpointError(
            "a latent-attention model without experts has no Hugging Face architecture; "
            "set model.moe, or attention='gqa'"
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
    raise CheckpointError(
        f"{source}: model_type={kind!r} is not supported; there are llama, deepseek_v3, kimi_k2"
    )


# Options of the two architectures of which the model implements one value, which is the default.
_ONLY = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
}


def _common(hf: dict[str, Any]) -> dict[str, Any]:
    for key, value in _ONLY.items():
        if hf.get(key, value) != value:
            raise CheckpointError(f"config.json: {key}={hf[key]!r} is not supported, only {value}")
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
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
        "tie_embeddings": hf.get("tie_word_embeddings", False),
        "init_std": hf.get("initializer_range", 0.02),
    }


def _from_llama(hf: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        **_common(hf),
        attention="gqa",
        num_kv_heads=hf.get("num_key_value_heads"),
        head_dim=hf.get("head_dim"),
        rope_interleaved=False,
    )


def _from_deepseek(hf: dict[str, Any]) -> ModelConfig:
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
        rope_interleaved=hf.get("rope_interleave", True),
        moe=moe,
    )


def to_hf_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model under its name on disk."""
    state = model.state_dict()
    for ours, theirs in hf_names(model.config).items():
        tensor = state.pop(ours)
        parts = [tensor] if len(theirs) == 1 else list(tensor)
        yield from ((name, part.contiguous()) for name, part in zip(theirs, parts, strict=True))
    assert not state, f"tensors without a name on disk: {sorted(state)}"


def save_pretrained(
    model: Transformer,
    directory: Path,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
) -> None:
    """Writes ``config.json`` and ``model.safetensors``."""
    directory.mkdir(parents=True, exist_ok=True)
    config = to_hf_config(model.config)
    config |= {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(dict(to_hf_tensors(model)), directory / "model.safetensors", {"format": "pt"})


def load_pretrained(directory: Path, compute_dtype: torch.dtype = torch.float32) -> Transformer:
    """A model from a directory with ``config.json`` and safetensors; weights in float32.

    Raises:
        CheckpointError: a missing or damaged file, a missing, unexpected or misshapen tensor.
    """
    config_path = directory / "config.json"
    if not config_path.is_file():
        raise CheckpointError(
            f"{directory} is not a model directory: {config_path.name} is missing; "
            "give the directory that training exported"
        )
    try:
        hf_config = json.loads(config_path.read_text())
    except ValueError as broken:
        raise CheckpointError(f"{config_path} is not JSON: {broken}") from broken
    config = from_hf_config(hf_config, str(config_path))
    tensors = _read_tensors(directory)
    with torch.device("meta"):
        model = Transformer(config, compute_dtype)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for ours, theirs in hf_names(config).items():
        missing = [name for name in theirs if name not in tensors]
        if missing:
            raise CheckpointError(f"{directory}: the tensor {missing[0]} is missing")
        shape = expected[ours] if len(theirs) == 1 else expected[ours][1:]
        for name in theirs:
            if tensors[name].shape != shape:
                raise CheckpointError(
                    f"{directory}: {name} is {tuple(tensors[name].shape)}, but config.json says "
                    f"{tuple(shape)}"
                )
        parts = [tensors.pop(name).float() for name in theirs]
        state[ours] = parts[0] if len(theirs) == 1 else torch.stack(parts)
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    if tensors:
        raise CheckpointError(f"{directory}: unexpected tensor {min(tensors)}")
    model.load_state_dict(state, assign=True)
    return model


def _read_tensors(directory: Path) -> dict[str, Tensor]:
    """All tensors in the directory's safetensors files."""
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{directory} holds no .safetensors file")
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as shard:
                tensors.update({name: shard.get_tensor(name) for name in shard.keys()})  # noqa: SIM118
        except (SafetensorError, OSError) as broken:
            raise CheckpointError(
                f"{path} is damaged ({broken}); export or copy it again"
            ) from broken
    return tensors
