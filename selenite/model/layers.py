"""The two layers with parameters that everything else is made of: ``Linear`` and ``RMSNorm``.

They only hold parameters; the arithmetic is in ``ops``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selenite.ops.linear import linear
from selenite.ops.norm import rms_norm


class Linear(nn.Module):
    """A weight ``[outputs, inputs]`` without bias, uninitialised until ``init_weights``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x_TI: Tensor) -> Tensor:
        return linear(x_TI, self.weight)


class RMSNorm(nn.Module):
    """A gain per channel, one at the start."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_TD: Tensor) -> Tensor:
        return rms_norm(x_TD, self.weight, self.eps)
