"""Our models as Hugging Face directories and back: tensors and their names.

Names follow the published DeepSeek-V3 and Llama checkpoints: one tensor an expert on disk, one
stacked tensor for all experts here. An extra prediction layer is on disk one more layer, with
copies of embedding and head. Every tensor is accounted for: a missing, unexpected or misshapen one
is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from selenite.errors import CheckpointError
from selenite.model.config import ModelConfig
from selenite.model.fp8 import dequantize_blocks
from selenite.model.hf_config import from_hf_config, to_hf_config
from selenite.model.transformer import Transformer

_EXPERT_WEIGHTS = ("gate", "up", "down")
_NEXTN_PARTS = {
    "embed_norm": "enorm",
    "hidden_norm": "hnorm",
    "project": "eh_proj",
    "norm": "shared_head.norm",
}
_SCALE = "_scale_inv"


def hf_names(config: ModelConfig) -> dict[str, list[str]]:
    """Our name of each tensor to its names on disk; several names are stacked, one an expert."""
    names = {"embed.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config.tie_embeddings:
        names["head.weight"] = ["lm_head.weight"]
    for i in range(config.num_layers):
        names |= _block_names(config, i, f"layers.{i}")
    for k in range(config.num_nextn_predict_layers):
        ours, theirs = f"nextn.{k}", f"model.layers.{config.num_layers + k}"
        for part, hf_part in _NEXTN_PARTS.items():
            names[f"{ours}.{part}.weight"] = [f"{theirs}.{hf_part}.weight"]
        names |= _block_names(config, config.num_layers + k, f"{ours}.block")
    return names


def _block_names(config: ModelConfig, layer: int, ours: str) -> dict[str, list[str]]:
    """Likewise of the block with index ``layer`` on disk, which is ``ours`` here."""
    theirs = f"model.layers.{layer}"
    names = {
        f"{ours}.attention_norm.weight": [f"{theirs}.input_layernorm.weight"],
        f"{ours}.ffn_norm.weight": [f"{theirs}.post_attention_layernorm.weight"],
    }
    for part, hf_part in _attention_parts(config).items():
        names[f"{ours}.attention.{part}.weight"] = [f"{theirs}.self_attn.{hf_part}.weight"]
    if config.moe is None or not config.is_moe_layer(layer):
        for part in _EXPERT_WEIGHTS:
            names[f"{ours}.ffn.{part}.weight"] = [f"{theirs}.mlp.{part}_proj.weight"]
        return names
    names[f"{ours}.ffn.router.weight"] = [f"{theirs}.mlp.gate.weight"]
    names[f"{ours}.ffn.router.bias"] = [f"{theirs}.mlp.gate.e_score_correction_bias"]
    for part in _EXPERT_WEIGHTS:
        names[f"{ours}.ffn.experts.{part}"] = [
            f"{theirs}.mlp.experts.{e}.{part}_proj.weight" for e in range(config.moe.num_experts)
        ]
        if config.moe.num_shared_experts:
            names[f"{ours}.ffn.shared.{part}.weight"] = [
                f"{theirs}.mlp.shared_experts.{part}_proj.weight"
            ]
    return names


def hf_copies(config: ModelConfig) -> dict[str, str]:
    """Names on disk of the copies that the published files hold in each extra prediction layer, to
    our name of the tensor that they repeat."""
    head = "embed.weight" if config.tie_embeddings else "head.weight"
    copies: dict[str, str] = {}
    for k in range(config.num_nextn_predict_layers):
        theirs = f"model.layers.{config.num_layers + k}"
        copies[f"{theirs}.embed_tokens.weight"] = "embed.weight"
        copies[f"{theirs}.shared_head.head.weight"] = head
    return copies


def _attention_parts(config: ModelConfig) -> dict[str, str]:
    if config.attention == "gqa":
        return {part: f"{part}_proj" for part in ("q", "k", "v", "o")}
    parts = {"kv_a": "kv_a_proj_with_mqa", "kv_a_norm": "kv_a_layernorm", "kv_b": "kv_b_proj"}
    if config.q_lora_rank is None:
        query = {"q": "q_proj"}
    else:
        query = {"q_a": "q_a_proj", "q_a_norm": "q_a_layernorm", "q_b": "q_b_proj"}
    return {**query, **parts, "o": "o_proj"}


def to_hf_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a model under its name on disk, and the copies of ``hf_copies``."""
    state = model.state_dict()
    for copy, ours in hf_copies(model.config).items():
        yield copy, state[ours].clone()  # safetensors refuses tensors that share memory
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
    config = to_hf_config(model.config)
    config |= {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
    directory.mkdir(parents=True, exist_ok=True)
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
    tensors = _dequantized(_read_tensors(directory), directory)
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
    _take_copies(tensors, state, config, directory)
    if config.tie_embeddings:
        tensors.pop("lm_head.weight", None)
    if tensors:
        raise CheckpointError(f"{directory}: unexpected tensor {min(tensors)}")
    model.load_state_dict(state, assign=True)
    return model


def _take_copies(
    tensors: dict[str, Tensor], state: dict[str, Tensor], config: ModelConfig, directory: Path
) -> None:
    """Takes the copies of ``hf_copies`` out of ``tensors``; they may be absent, but not differ."""
    for copy, ours in hf_copies(config).items():
        tensor = tensors.pop(copy, None)
        if tensor is not None and not torch.equal(tensor.float(), state[ours]):
            raise CheckpointError(
                f"{directory}: {copy} differs from {hf_names(config)[ours][0]}, but must be a copy "
                "of it: extra prediction layers have no embedding and no head of their own"
            )


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


def _dequantized(tensors: dict[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """Float tensors: block-scaled fp8 weights multiplied by their ``NAME_scale_inv``."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE):
            if name.removesuffix(_SCALE) not in tensors:
                raise CheckpointError(f"{directory}: {name} scales a tensor that is not there")
        elif tensor.dtype != torch.float8_e4m3fn:
            plain[name] = tensor
        elif name + _SCALE not in tensors:
            raise CheckpointError(f"{directory}: {name} is fp8 but {name}{_SCALE} is missing")
        else:
            plain[name] = dequantize_blocks(tensor, tensors[name + _SCALE], name)
    return plain
