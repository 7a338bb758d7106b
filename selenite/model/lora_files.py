"""Adapters on disk, as PEFT has them: ``adapter_config.json`` and ``adapter_model.safetensors``.

Modules are named as in the published checkpoints (``hf_adapter.py``), one adapter an expert:
``base_model.model.model.layers.1.mlp.experts.3.up_proj.lora_A.weight``. Every tensor is accounted
for: a missing, unexpected or misshapen one is an error that names it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from selenite.errors import CheckpointError, ConfigError
from selenite.model.lora import LoRAConfig, adaptable, adapted_weight, adapters, attach_adapters
from selenite.model.transformer import Transformer
from selenite.model.weights import read_safetensors

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."

_ONLY = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "lora_bias": False,
    "use_dora": False,
    "use_rslora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "exclude_modules": None,
    "layers_to_transform": None,
    "layer_replication": None,
    "modules_to_save": None,
    "target_parameters": None,
    "trainable_token_indices": None,
}
"""Options of ``adapter_config.json`` of which one value is implemented."""


def save_lora(model: Transformer, directory: Path, base: str | None = None) -> None:
    """Writes the adapters of ``model``; ``base`` says what model they belong to."""
    found = adapters(model)
    if not found:
        raise ConfigError("the model has no adapter to save: add_lora first, merge_lora after")
    any_adapter = next(iter(found.values()))  # all have one rank and one alpha
    modules = adaptable(model.config)
    adapted = {module for path in found for module in modules[path]}
    others = {module for names in modules.values() for module in names} - adapted
    alpha = any_adapter.alpha
    # What PEFT's versions of all years know; the rest is their default.
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": any_adapter.rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": _endings(adapted, others),
        "inference_mode": True,
    }
    tensors = {
        name: part.detach().contiguous()
        for path, adapter in found.items()
        for matrix, tensor in (("A", adapter.A), ("B", adapter.B))
        for name, part in zip(_names(modules[path], matrix), _parts(tensor), strict=True)
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, directory / WEIGHTS, {"format": "pt"})


@torch.no_grad()
def load_lora(model: Transformer, directory: Path) -> Transformer:
    """Puts the adapters of a directory beside the weights of ``model``; returns the model, whose
    other weights are frozen. A refused directory changes nothing.

    Raises:
        CheckpointError: a missing or damaged file, an option that is not implemented, a missing,
            unexpected or misshapen tensor.
        ConfigError: the model has adapters already.
    """
    config = read_lora_config(directory, model)
    tensors = read_safetensors(directory / WEIGHTS)
    modules = adaptable(model.config)
    loaded: dict[str, dict[str, Tensor]] = {}
    for path in config.targets:
        outputs, inputs = adapted_weight(model, path).shape[-2:]
        shapes = {"A": (config.rank, inputs), "B": (outputs, config.rank)}
        loaded[path] = {
            matrix: torch.stack(
                [_take(tensors, name, shape, directory) for name in _names(modules[path], matrix)]
            )
            for matrix, shape in shapes.items()
        }
    if tensors:
        raise CheckpointError(
            f"{directory}: unexpected tensor {min(tensors)}: no weight of this model that "
            f"{CONFIG} names in target_modules has it"
        )
    attach_adapters(model, config)
    for path, adapter in adapters(model).items():
        adapter.A.copy_(loaded[path]["A"].view_as(adapter.A))
        adapter.B.copy_(loaded[path]["B"].view_as(adapter.B))
    return model


def _names(modules: list[str], matrix: str) -> list[str]:
    return [f"{_PREFIX}{module}.lora_{matrix}.weight" for module in modules]


def _parts(tensor: Tensor) -> list[Tensor]:
    return [tensor] if tensor.dim() == 2 else list(tensor)


def _take(tensors: dict[str, Tensor], name: str, shape: tuple[int, int], directory: Path) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{directory}: the tensor {name} is missing")
    tensor = tensors.pop(name)
    if tensor.shape != shape:
        raise CheckpointError(
            f"{directory}: {name} is {tuple(tensor.shape)}, but the model and r in {CONFIG} make "
            f"it {shape}; give the model that the adapter was trained on"
        )
    return tensor.float()


def read_lora_config(directory: Path, model: Transformer) -> LoRAConfig:
    """Rank, alpha and, as targets, the names of the weights that have an adapter there."""
    path = directory / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{directory} is not an adapter's directory: {CONFIG} is missing; give the folder "
            "'adapter' of a run, or what PEFT saved"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as broken:
        raise CheckpointError(f"{path} is not JSON: {broken}") from broken
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    for key, only in _ONLY.items():
        value = content.get(key, only)
        if (value or None) != (only or None):  # PEFT writes nothing as null, {}, [] or false
            raise CheckpointError(f"{path}: {key}={value!r} is not supported, only {only!r}")
    missing = [key for key in ("r", "lora_alpha", "target_modules") if key not in content]
    if missing:
        raise CheckpointError(f"{path} lacks the key {missing[0]!r}")
    try:
        return LoRAConfig(
            rank=content["r"],
            alpha=content["lora_alpha"],
            targets=_targets(content["target_modules"], model, path),
        )
    except ValidationError as refused:
        raise CheckpointError(f"{path} is not an adapter's config: {refused}") from refused


def _targets(targets: Any, model: Transformer, path: Path) -> tuple[str, ...]:
    """Our names of the weights whose modules PEFT's ``target_modules`` means: the ends of their
    names, or one pattern for all. Of experts it must mean all or none."""
    if isinstance(targets, str):
        pattern = targets
    elif isinstance(targets, list) and all(isinstance(target, str) for target in targets):
        pattern = rf"(.*\.)?({'|'.join(map(re.escape, targets))})"
    else:
        raise CheckpointError(f"{path}: target_modules={targets!r} is no list of names")
    try:
        means = re.compile(pattern).fullmatch
    except re.error as error:
        raise CheckpointError(
            f"{path}: target_modules={targets!r} is no pattern: {error}"
        ) from error
    chosen: list[str] = []
    for ours, modules in adaptable(model.config).items():
        meant = [module for module in modules if means(module)]
        if meant and len(meant) < len(modules):
            left = next(module for module in modules if module not in meant)
            raise CheckpointError(
                f"{path}: target_modules means {meant[0]} but not {left}; adapters of experts are "
                "supported for all experts of a layer, or none"
            )
        chosen += [ours] if meant else []
    if not chosen:
        raise CheckpointError(f"{path}: target_modules={targets!r} means no weight of this model")
    return tuple(chosen)


def _endings(adapted: set[str], others: set[str]) -> list[str]:
    """The shortest ends of names that mean the ``adapted`` modules and none of the ``others``."""
    taken = {ending for module in others for ending in _ends(module)}
    return sorted({next(end for end in _ends(m) if end not in taken) for m in adapted})


def _ends(module: str) -> list[str]:
    """``c``, ``b.c``, ``a.b.c`` of ``a.b.c``."""
    parts = module.split(".")
    return [".".join(parts[first:]) for first in reversed(range(len(parts)))]
