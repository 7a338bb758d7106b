"""The layers with parameters that everything else is made of: ``Linear``, ``RMSNorm``, ``Adapter``.

They only hold parameters; the arithmetic is in ``ops``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selenite.ops.linear import (
    LowRank,
    Packed,
    linear,
    low_rank,
    low_rank_weight,
    packed_linear,
)
from selenite.ops.norm import rms_norm


class Adapter(nn.Module):
    """LoRA's factors beside ``weight``, which may be a stack of experts.

    ``A`` is uninitialised until ``model/lora.py`` fills it; ``B`` is zero. Both are float32.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        *stack, outputs, inputs = weight.shape
        self.A = nn.Parameter(torch.empty(*stack, rank, inputs, device=weight.device))
        self.B = nn.Parameter(torch.zeros(*stack, outputs, rank, device=weight.device))
        self.rank, self.alpha = rank, alpha

    @property
    def low_rank(self) -> LowRank:
        """What is added to the weight."""
        return LowRank(self.A, self.B, self.alpha / self.rank)


class Linear(nn.Module):
    """A weight ``[outputs, inputs]`` without bias, uninitialised until ``init_weights``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.lora: Adapter | None = None  # set and taken away by model/lora.py
        self.packed: Packed | None = None  # in the weight's place; set by model/pack.py

    @property
    def full_weight(self) -> Tensor:
        """The weight with what an adapter adds to it, for whoever needs the matrix itself."""
        assert self.packed is None, "a packed weight is no matrix"
        if self.lora is None:
            return self.weight
        return self.weight + low_rank_weight(self.lora.low_rank)

    def forward(self, x_TI: Tensor) -> Tensor:
        packed = self.packed
        y_TO = linear(x_TI, self.weight) if packed is None else packed_linear(x_TI, packed)
        return y_TO if self.lora is None else y_TO + low_rank(x_TI, self.lora.low_rank)


class RMSNorm(nn.Module):
    """A gain per channel, one at the start."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        return rms_norm(x_TD, self.weight, self.eps)
