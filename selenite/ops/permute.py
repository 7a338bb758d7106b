"""Reordering rows, with a gradient that is the inverse reordering.

torch differentiates indexing by scattering with addition, which is slow and must assume that rows
repeat. A permutation's gradient is a gather.

Letters: ``X`` rows, in either order.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def invert(order_X: Tensor) -> Tensor:
    """The permutation that undoes ``order``."""
    inverse_X = torch.empty_like(order_X)
    inverse_X[order_X] = torch.arange(len(order_X), device=order_X.device)
    return inverse_X


def permute_rows(x: Tensor, order_X: Tensor, inverse_X: Tensor) -> Tensor:
    """``x[order]`` for a permutation and its inverse."""
    return _PermuteRows.apply(x, order_X, inverse_X)


def repeat_rows(x_TD: Tensor, order_X: Tensor, inverse_X: Tensor, times: int) -> Tensor:
    """``x.repeat_interleave(times, 0)[order]`` for a permutation and its inverse."""
    return _RepeatRows.apply(x_TD, order_X, inverse_X, times)


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order_X: Tensor, inverse_X: Tensor) -> Tensor:
        ctx.inverse_X = inverse_X
        return x.index_select(0, order_X)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, ctx.inverse_X), None, None


class _RepeatRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, order_X: Tensor, inverse_X: Tensor, times: int) -> Tensor:
        ctx.inverse_X, ctx.times = inverse_X, times
        return x_TD.index_select(0, order_X // times)

    @staticmethod
    def backward(ctx: Any, grad_XD: Tensor) -> tuple[Tensor, None, None, None]:
        grad_TKD = grad_XD.index_select(0, ctx.inverse_X).unflatten(0, (-1, ctx.times))
        return grad_TKD.sum(1), None, None, None
