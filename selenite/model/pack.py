"""Weights in the form that serving multiplies by: packed for our kernels, in bfloat16 or int8.

int8 is "weight-only": each row of a matrix has a scale, activations stay as they are, and a decode
step reads half the bytes. Packed are the matrices of the layers and the head. Experts' stacks, the
expansion of latents, router and embedding stay: they are no plain products of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from selenite.errors import ConfigError
from selenite.model.attention import LatentAttention
from selenite.model.layers import Linear
from selenite.model.transformer import Transformer
from selenite.ops.large_pages import empty_in_large_pages
from selenite.ops.linear import can_pack, pack, packed_size


def pack_weights(model: Transformer, to_int8: bool = False) -> Transformer:
    """Packs the matrices of a model that is only served; returns it.

    A tied head becomes a matrix of its own, and the embedding stays. Where there are no kernels
    for it the model stays as it is.

    Raises ``ConfigError`` for int8 where there are no kernels for it.
    """
    if not can_pack(model.embed.weight):
        if to_int8:
            raise ConfigError(
                "--quantization int8: its products are our kernels' for avx512_bf16 alone, which "
                f"do not serve {model.compute_dtype} here (selenite doctor says why); leave it out"
            )
        return model
    if model.config.tie_embeddings:
        embedding = model.embed.weight
        with torch.device("meta"):
            model.head = Linear(embedding.shape[1], embedding.shape[0])
        model.head.weight = nn.Parameter(embedding.detach(), requires_grad=False)
    modules = list(_packable(model))
    # One stretch of memory, in the order in which a step reads it.
    sizes = [packed_size(module.weight) for module in modules]
    memory = empty_in_large_pages((sum(sizes),), torch.int8 if to_int8 else torch.bfloat16)
    for module, values in zip(modules, memory.split(sizes), strict=True):
        module.packed = pack(module.weight, values)
        # Its shape and device are still asked for; its values are gone.
        shell = module.weight.new_full((1, 1), torch.nan).expand_as(module.weight)
        module.weight = nn.Parameter(shell, requires_grad=False)
    model.is_int8 = to_int8
    return model


def _packable(model: Transformer) -> Iterator[Linear]:
    assert model.head is not None
    modules = (*model.layers.modules(), model.head)
    kept = {id(module.kv_b) for module in modules if isinstance(module, LatentAttention)}
    for module in modules:
        if isinstance(module, Linear) and id(module) not in kept and can_pack(module.weight):
            yield module


def packed_bytes(model: Transformer) -> int:
    """What the weights take."""
    packed = [m.packed for m in model.modules() if isinstance(m, Linear) and m.packed is not None]
    # A shell that only has the weight's shape takes nothing.
    stored = [parameter for parameter in model.parameters() if 0 not in parameter.stride()]
    return sum(p.num_bytes for p in packed) + sum(parameter.nbytes for parameter in stored)
