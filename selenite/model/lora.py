"""LoRA: a frozen model with a trained low-rank product beside each chosen weight.

A weight W becomes W + (alpha / rank) B A (arXiv 2106.09685, section 4.1). The products are in
``ops/linear.py`` and, for routed experts, each of which has its own A and B, in ``ops/moe.py``.
``train/initial_model.py`` adds adapters, ``lora_files.py`` writes and reads them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from pydantic import Field
from torch import Tensor, nn

from selenite.config import Config
from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import hf_names
from selenite.model.layers import Adapter, Linear
from selenite.model.moe import Experts
from selenite.model.transformer import Transformer
from selenite.ops.linear import low_rank_weight

_HEAD = "head"
_LAYER = re.compile(r"layers\.\d+\.")
# Gains are no matrices, and of the embedding rows are looked up. The router chooses by comparing
# scores: a small change of them is not a small change of the output. Extra prediction layers are
# not trained with adapters.
_WITHOUT_ADAPTER = re.compile(r"embed|(.+\.)?(\w+_)?norm|.+\.router(\.\w+)?|nextn\..+")


class LoRAConfig(Config):
    """What is adapted, and by how much."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    """The adapters' product is multiplied by ``alpha / rank``."""
    targets: tuple[str, ...] = Field(default=("attention.*", "ffn.*"), min_length=1)
    """Weights by name, with or without their layer (``attention.q_b``, ``layers.3.ffn.down``,
    ``ffn.experts.gate``, ``head``), or patterns of names. ``*`` stands for any text, dots too."""


@dataclass(frozen=True)
class AdapterCount:
    """Parameters of a model's adapters."""

    total: int
    active: int  # that one token is multiplied by: of the experts', those that it uses


def adaptable(config: ModelConfig) -> dict[str, list[str]]:
    """The weights that can have an adapter, with their modules on disk: several are experts."""
    names = hf_names(config) | {"head.weight": ["lm_head.weight"]}
    paths = {ours.removesuffix(".weight"): theirs for ours, theirs in names.items()}
    return {
        path: [name.removesuffix(".weight") for name in theirs]
        for path, theirs in paths.items()
        if not _WITHOUT_ADAPTER.fullmatch(path)
    }


def target_paths(config: ModelConfig, targets: tuple[str, ...]) -> list[str]:
    """The weights that ``targets`` mean in a model, in the order of ``adaptable``.

    Raises:
        ConfigError: a target that means none, with the nearest names.
    """
    short = {path: _LAYER.sub("", path, count=1) for path in adaptable(config)}
    chosen: set[str] = set()
    for target in targets:
        found = {path for path, name in short.items() if _matches(target, path, name)}
        if not found:
            names = list(dict.fromkeys(short.values()))
            raise ConfigError(
                f"lora.targets: {target!r} is no weight that can have an adapter; "
                + _nearest(target, names, list(short))
            )
        chosen |= found
    return [path for path in short if path in chosen]


def _matches(target: str, *names: str) -> bool:
    return any(fnmatchcase(name, target) for name in names)


def _nearest(target: str, names: list[str], paths: list[str]) -> str:
    """Names that end as the target does, or are spelt like it; else all of them."""
    ending = [name for name in names if name.endswith(f".{target}")]
    near = ending or difflib.get_close_matches(target, [*names, *paths])
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}"


@torch.no_grad()
def add_lora(model: Transformer, config: LoRAConfig, seed: int) -> Transformer:
    """Freezes ``model`` and puts adapters beside the targets; returns the model.

    A is uniform in ±1/sqrt(inputs), as PEFT draws it, so that learning rates carry over; B is
    zero, so that the model computes what it did. A tied head that is a target becomes a copy of
    the embedding first: merged, the two differ.

    Raises:
        ConfigError: an unknown target, or a model that has adapters.
    """
    attach_adapters(model, config)
    generator = torch.Generator().manual_seed(seed)
    for _, adapter in sorted(adapters(model).items()):
        bound = adapter.A.shape[-1] ** -0.5
        drawn = torch.empty(adapter.A.shape, device="cpu").uniform_(
            -bound, bound, generator=generator
        )
        adapter.A.copy_(drawn)
    return model


def attach_adapters(model: Transformer, config: LoRAConfig) -> Transformer:
    """``add_lora`` with A uninitialised."""
    if adapters(model):
        raise ConfigError("the model has adapters already; merge them first (merge_lora)")
    paths = target_paths(model.config, config.targets)
    model.requires_grad_(False)
    if _HEAD in paths and model.config.tie_embeddings:
        _untie(model)
    for path in paths:
        adapter = Adapter(adapted_weight(model, path), config.rank, config.alpha)
        module, part = _owner(model, path)
        if isinstance(module, Experts):
            module.lora[part] = adapter
        else:
            module.lora = adapter
    return model


def _untie(model: Transformer) -> None:
    embedding = model.embed.weight
    with torch.device(embedding.device):
        model.head = Linear(embedding.shape[1], embedding.shape[0])
    model.head.weight = nn.Parameter(embedding.detach().clone(), requires_grad=False)
    model.config = model.config.model_copy(update={"tie_embeddings": False})


def _owner(model: Transformer, path: str) -> tuple[Experts | Linear, str]:
    """The module that holds a weight's adapter, and the last part of the weight's name."""
    above, _, part = path.rpartition(".")
    stack = model.get_submodule(above)
    if isinstance(stack, Experts):
        return stack, part
    module = model.get_submodule(path)
    assert isinstance(module, Linear), path
    return module, part


def adapted_weight(model: Transformer, path: str) -> Tensor:
    """The weight of ``adaptable``'s name ``path``, without what an adapter adds to it."""
    if path == _HEAD and model.config.tie_embeddings:
        return model.embed.weight
    module, part = _owner(model, path)
    return model.get_parameter(path) if isinstance(module, Experts) else module.weight


def adapters(model: Transformer) -> dict[str, Adapter]:
    """The model's adapters by the name of the weight that they belong to."""
    found = {name: part for name, part in model.named_modules() if isinstance(part, Adapter)}
    return {
        ".".join(part for part in name.split(".") if part != "lora"): adapter
        for name, adapter in found.items()
    }


def take_adapters(model: Transformer) -> dict[str, Adapter]:
    """Takes the model's adapters away, by the name of the weight that they belonged to."""
    taken = adapters(model)
    for path in taken:
        module, part = _owner(model, path)
        if isinstance(module, Experts):
            del module.lora[part]
        else:
            module.lora = None
    return taken


def put_adapters(model: Transformer, taken: Mapping[str, Adapter]) -> None:
    """Puts adapters back that ``take_adapters`` took; the model has none."""
    assert not adapters(model)
    for path, adapter in taken.items():
        module, part = _owner(model, path)
        if isinstance(module, Experts):
            module.lora[part] = adapter
        else:
            module.lora = adapter


@torch.no_grad()
def merge_lora(model: Transformer) -> Transformer:
    """Adds the adapters into their weights and takes them away; returns the model, trainable."""
    for path, adapter in adapters(model).items():
        weight, lora = adapted_weight(model, path), adapter.low_rank
        if weight.dim() == 2:
            weight += low_rank_weight(lora)
        else:  # one expert after another: a stack's product would be as large as the stack
            for weight_OI, a_RI, b_OR in zip(weight, lora.a_RI, lora.b_OR, strict=True):
                weight_OI += low_rank_weight(lora._replace(a_RI=a_RI, b_OR=b_OR))
    take_adapters(model)
    return model.requires_grad_(True)


def count_adapters(model: Transformer) -> AdapterCount:
    """Parameters of the model's adapters."""
    total = active = 0
    for path, adapter in adapters(model).items():
        size = adapter.A.numel() + adapter.B.numel()
        total += size
        moe = model.config.moe
        if moe is not None and ".experts." in path:
            size = size // moe.num_experts * moe.experts_per_token
        active += size
    return AdapterCount(total, active)


def planned_adapters(model: ModelConfig, config: LoRAConfig) -> AdapterCount:
    """Parameters of the adapters that ``add_lora`` would add; nothing is allocated."""
    with torch.device("meta"):
        return count_adapters(attach_adapters(Transformer(model), config))
