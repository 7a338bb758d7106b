"""The dense SwiGLU feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn

from selenite.model.layers import Linear
from selenite.ops.activation import swiglu


class FeedForward(nn.Module):
    """``down(silu(gate x) * up x)``."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = Linear(width, hidden)
        self.up = Linear(width, hidden)
        self.down = Linear(hidden, width)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Same shape and dtype as ``x``."""
        return self.down(swiglu(self.gate(x_TD), self.up(x_TD)))
