"""What a checkpoint holds, from its headers alone: ``selenite inspect``.

Nothing is read but headers and the config, so a checkpoint of a trillion parameters takes seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from selenite.model.accounting import ParameterCount, cache_bytes_per_token, count_parameters
from selenite.model.config import ModelConfig
from selenite.model.convert import open_checkpoint, unpacked
from selenite.model.weights import num_elements

# Part of a model -> what the names of its tensors contain; the first that fits.
_PARTS = (
    ("experts", ".mlp.experts."),
    ("routers", ".mlp.gate."),
    ("attention", ".self_attn."),
    ("feed-forward", ".mlp."),
    ("embedding", "embed_tokens"),
    ("head", "lm_head"),
    ("norms", "norm"),
)


@dataclass(frozen=True)
class Group:
    """Tensors that are counted together."""

    tensors: int
    values: int
    num_bytes: int


@dataclass(frozen=True)
class Inspection:
    """A checkpoint that is complete."""

    config: ModelConfig
    count: ParameterCount
    parts: dict[str, Group]
    dtypes: dict[str, Group]
    files: dict[str, Group]
    cache_bytes: int  # of a cached token, bfloat16; latent entries where the model has them


def inspect(source: Path) -> Inspection:
    """Counts a checkpoint (see ``convert.convert`` for what ``source`` may be).

    Raises ``CheckpointError`` that names what is missing, unexpected or misshapen.
    """
    with unpacked(source) as file:
        checkpoint = open_checkpoint(file)
    stored = checkpoint.weights.stored

    def grouped(keys: dict[str, str]) -> dict[str, Group]:
        tensors: Counter[str] = Counter()
        values: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for name, key in keys.items():
            tensors[key] += 1
            values[key] += num_elements(stored[name].shape)
            sizes[key] += stored[name].num_bytes
        return {key: Group(tensors[key], values[key], sizes[key]) for key in tensors}

    return Inspection(
        config=checkpoint.config,
        count=count_parameters(checkpoint.config),
        parts=grouped({name: _part(name) for name in stored}),
        dtypes=grouped({name: tensor.dtype for name, tensor in stored.items()}),
        files=grouped({name: tensor.file.name for name, tensor in stored.items()}),
        cache_bytes=cache_bytes_per_token(checkpoint.config),
    )


def _part(name: str) -> str:
    return next((part for part, piece in _PARTS if piece in name), "other")
