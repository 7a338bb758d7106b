"""Weights for an engine in the trainer's process: a copy beside what serves, and a pointer's swap.

Two copies take turns: what no longer serves is the place for the next version, since memory that is
new to the process takes several times as long to write.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from selenite.model.lora import adapters, merge_lora
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.ops.linear import can_pack
from selenite.serve.engine.loop import EngineThread


def merged(model: Transformer) -> Transformer:
    """The model itself, or a copy with its adapters merged."""
    return merge_lora(copy.deepcopy(model)) if adapters(model) else model


def served_copy(model: Transformer, dtype: torch.dtype) -> Transformer:
    """The model for an engine: all in ``dtype``, adapters merged, without gradients."""
    served = copy.deepcopy(model)
    if adapters(served):
        merge_lora(served)
    served.requires_grad_(False)
    return pack_weights(served.cast(dtype).eval())


def can_refill(served: Transformer) -> bool:
    """Whether ``refill`` can: packed weights have another form."""
    return not can_pack(served.embed.weight)


@torch.no_grad()
def refill(served: Transformer, values: Mapping[str, Tensor]) -> None:
    """Copies ``values``, by the names of ``state_dict``, into a model that no engine uses now."""
    state = served.state_dict()
    assert state.keys() == values.keys()
    for name, tensor in state.items():
        tensor.copy_(values[name])


class InProcess:
    """A ``Transport`` to an engine in this process.

    Args:
        thread: runs the engine, whose model nobody else uses.
    """

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self._spare: Transformer | None = None
        self._staged: tuple[Transformer, int] | None = None

    def stage(self, model: Transformer, version: int) -> None:
        """Copies the weights; nothing of them can fail to fit."""
        spare, self._spare = self._spare, None
        if spare is None:
            spare = served_copy(model, self._thread.engine.runner.model.compute_dtype)
        else:
            refill(spare, merged(model).state_dict())
        self._staged = spare, version

    def commit(self) -> None:
        """Raises ``UnavailableError`` where the engine has ended."""
        assert self._staged is not None
        model, version = self._staged
        retired = self._thread.engine.runner.model
        self._thread.swap_weights(model, version, "recompute").result()
        self._spare = retired if can_refill(retired) else None
        self._staged = None
