"""The model that a run begins with: random weights, or those of a model directory.

With ``[lora]`` those of the directory are frozen and adapters are put beside them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from selenite.atomic import sha256
from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained, read_config
from selenite.model.hf_config import from_hf_config, to_hf_config
from selenite.model.init import init_weights
from selenite.model.lora import add_lora
from selenite.model.transformer import Transformer
from selenite.train.checkpoint import differences
from selenite.train.pretrain_config import PretrainConfig

# How far and how finely positions are told apart is changed to train on longer text, and what rows
# read to make that cheaper; the last is read only where weights are drawn.
_FREE = {"max_positions", "rope_theta", "yarn", "moba", "init_std"}


def initial_model(config: PretrainConfig, dtype: torch.dtype) -> Transformer:
    """The model of ``config`` at its first step, on the CPU.

    Raises ``ConfigError`` if ``train.init_from`` is a model of other dimensions, and
    ``CheckpointError`` if it is damaged.
    """
    train = config.train
    if train.init_from is None:
        model = init_weights(Transformer(config.model, dtype), train.seed)
    else:
        _check_same_model(train.init_from, config.model)
        model = load_pretrained(train.init_from, dtype, config.model)
    return model if config.lora is None else add_lora(model, config.lora, train.seed)


def weight_hashes(directory: Path) -> dict[str, str]:
    """SHA-256 of the weights in a model directory by file: what makes it the same model."""
    return {path.name: sha256(path) for path in sorted(directory.glob("*.safetensors"))}


def _check_same_model(directory: Path, wanted: ModelConfig) -> None:
    # Both as they are written: a config can say one thing in two ways.
    there, here = (
        from_hf_config(to_hf_config(config)).model_dump(mode="json", exclude=_FREE)
        for config in (read_config(directory), wanted)
    )
    differing = list(differences("model", there, here))
    if differing:
        raise ConfigError(
            f"train.init_from={directory} is another model: {'; '.join(differing)} (there, in this "
            f"config). Set these as they are there; only {', '.join(sorted(_FREE))} may differ"
        )
