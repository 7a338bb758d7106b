"""Our models as Hugging Face directories and back: tensors and their names.

Names follow the published DeepSeek-V3 and Llama checkpoints: one tensor an expert on disk, one
stacked tensor for all experts here. An extra prediction layer is on disk one more layer, with
copies of embedding and head. Every tensor is accounted for: a missing, unexpected or misshapen one
is an error that names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selenite.chat.tokenizer import Tokenizer
from selenite.errors import CheckpointError, TokenizerError
from selenite.model.config import ModelConfig
from selenite.model.hf_config import from_hf_config, to_hf_config
from selenite.model.shards import SHARD_BYTES, ShardWriter
from selenite.model.transformer import Transformer
from selenite.model.weights import SafetensorsWeights, Weights

CONFIG = "config.json"
_HEAD = "lm_head.weight"
_TOKENIZER = "tokenizer_sha256"  # key of config.json; other programs pass over it
_EXPERT_WEIGHTS = ("gate", "up", "down")
_NEXTN_PARTS = {
    "embed_norm": "enorm",
    "hidden_norm": "hnorm",
    "project": "eh_proj",
    "norm": "shared_head.norm",
}
_NAMED = 5  # tensors that an error names of each kind of fault


def hf_names(config: ModelConfig) -> dict[str, list[str]]:
    """Our name of each tensor to its names on disk; several names are stacked, one an expert."""
    names = {"embed.weight": ["model.embed_tokens.weight"], "norm.weight": ["model.norm.weight"]}
    if not config.tie_embeddings:
        names["head.weight"] = [_HEAD]
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


def check_account(config: ModelConfig, weights: Weights, source: str) -> None:
    """Compares what a checkpoint holds with what its config asks for, from headers alone.

    Raises ``CheckpointError`` that counts and names the tensors that are missing, unexpected or of
    another shape.
    """
    shapes = _state_shapes(config)
    expected: dict[str, tuple[int, ...]] = {}
    for ours, theirs in hf_names(config).items():
        shape = shapes[ours] if len(theirs) == 1 else shapes[ours][1:]
        expected.update(dict.fromkeys(theirs, tuple(shape)))
    found = set(weights.names())
    if config.tie_embeddings:
        found.discard(_HEAD)  # some writers repeat the embedding there
    found -= hf_copies(config).keys()
    faults = {
        "missing": sorted(expected.keys() - found),
        "unexpected": sorted(found - expected.keys()),
        "not of the shape that config.json says": [
            f"{name} {weights.shape(name)} instead of {expected[name]}"
            for name in sorted(expected.keys() & found)
            if weights.shape(name) != expected[name]
        ],
    }
    lines = [
        f"{len(names)} {fault}: {', '.join(names[:_NAMED])}"
        + (", ..." if len(names) > _NAMED else "")
        for fault, names in faults.items()
        if names
    ]
    if lines:
        raise CheckpointError(
            f"{source}: tensors do not match the config; "
            + "; ".join(lines)
            + ". The files or the "
            "config belong to another checkpoint, or were copied in part"
        )


def read_config_json(directory: Path) -> dict[str, Any]:
    """The ``config.json`` of a model directory, whole."""
    path = directory / CONFIG
    if not path.is_file():
        if not directory.exists():
            raise CheckpointError(
                f"{directory}: no such directory; give one of this machine (names on a hub are not "
                "looked up)"
            )
        if (directory / "checkpoints").is_dir():
            raise CheckpointError(
                f"{directory} is a training run that has not ended: its model is written at the "
                "end; go on with the command that began it"
            )
        raise CheckpointError(
            f"{directory} is not a model directory: {path.name} is missing; "
            "give the directory that training exported"
        )
    try:
        hf_config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as broken:
        raise CheckpointError(f"{path} is not JSON: {broken}") from broken
    return hf_config


def save_pretrained(
    model: Transformer,
    directory: Path,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    tokenizer_sha256: str | None = None,
) -> None:
    """Writes ``config.json`` and safetensors files of at most ``shard_bytes``.

    ``tokenizer_sha256`` is the fingerprint of the tokenizer that it was trained with, for
    ``check_tokenizer``.
    """
    config = to_hf_config(model.config)
    config |= {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id}
    if tokenizer_sha256 is not None:
        config[_TOKENIZER] = tokenizer_sha256
    writer = ShardWriter(directory, shard_bytes)
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, tensor in to_hf_tensors(model):
        writer.add(name, tensor)
    writer.close()


def read_config(directory: Path) -> ModelConfig:
    """The dimensions of the model in a directory.

    Raises:
        CheckpointError: ``config.json`` is missing, damaged, or says what the model has not got.
    """
    return from_hf_config(read_config_json(directory), str(directory / CONFIG))


def check_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Raises ``TokenizerError`` where the tokenizer cannot be, or is not, that of the model in
    ``directory``. Published models do not say which theirs is; those trained here do."""
    config = read_config_json(directory)
    vocab_size = from_hf_config(config, str(directory / CONFIG)).vocab_size
    if tokenizer.vocab_size > vocab_size:
        raise TokenizerError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens but the model only "
            f"{vocab_size}; use the tokenizer it was trained with"
        )
    if config.get(_TOKENIZER, tokenizer.fingerprint()) != tokenizer.fingerprint():
        raise TokenizerError(
            f"{directory}: the tokenizer is not the one that the model was trained with "
            f"({tokenizer.fingerprint()[:12]} instead of {str(config[_TOKENIZER])[:12]}); copy "
            "that one back"
        )


def load_pretrained(
    directory: Path,
    compute_dtype: torch.dtype = torch.float32,
    config: ModelConfig | None = None,
) -> Transformer:
    """A model from a directory with ``config.json`` and safetensors; weights in float32.

    Tensors are read one at a time into the model's own: nothing is held twice.

    Args:
        directory: what training exported, or a published checkpoint.
        compute_dtype: of the activations.
        config: the model's config where it is to differ from the directory's, in nothing that
            changes a shape.

    Raises:
        CheckpointError: a missing or damaged file, a missing, unexpected or misshapen tensor.
    """
    config = config or read_config(directory)
    weights = SafetensorsWeights(directory)
    check_account(config, weights, str(directory))
    with torch.device("meta"):
        model = Transformer(config, compute_dtype)
    state: dict[str, Tensor] = {}
    for ours, theirs in hf_names(config).items():
        if len(theirs) == 1:
            state[ours] = weights.read(theirs[0]).float()
            continue
        state[ours] = torch.empty(_state_shapes(config)[ours])
        for part, name in zip(state[ours], theirs, strict=True):
            part.copy_(weights.read(name))
    _check_copies(weights, state, config, directory)
    model.load_state_dict(state, assign=True)
    return model


def _check_copies(
    weights: Weights, state: dict[str, Tensor], config: ModelConfig, directory: Path
) -> None:
    """The copies of ``hf_copies`` may be absent, but not differ."""
    for copy, ours in hf_copies(config).items():
        if copy in weights.stored and not torch.equal(weights.read(copy).float(), state[ours]):
            raise CheckpointError(
                f"{directory}: {copy} differs from {hf_names(config)[ours][0]}, but must be a copy "
                "of it: extra prediction layers have no embedding and no head of their own"
            )


@lru_cache(maxsize=4)
def _state_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = Transformer(config)
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
