"""Reordering rows, with gradients that gather.

torch differentiates indexing by scattering with addition, which is slow and must assume that rows
repeat. The gradient of a permutation is the inverse permutation, and ``repeat_rows`` and
``sum_rows`` are each other's gradient.

Letters: ``X`` rows in their new order, ``K`` copies of a row.
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


def sum_rows(x_XD: Tensor, order_X: Tensor, inverse_X: Tensor, times: int) -> Tensor:
    """Sums, in order, the ``times`` rows that ``repeat_rows`` made of each row: ``[T, D]``."""
    return _SumRows.apply(x_XD, order_X, inverse_X, times)


def _gather_sum(x_XD: Tensor, inverse_X: Tensor, times: int) -> Tensor:
    rows_TK = inverse_X.view(-1, times)
    # One addition after another in float32: the sum of a row never depends on the other rows.
    total_TD = x_XD[rows_TK[:, 0]].float()
    for k in range(1, times):
        total_TD += x_XD[rows_TK[:, k]]
    return total_TD.to(x_XD.dtype)


class _PermuteRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order_X: Tensor, inverse_X: Tensor) -> Tensor:
        ctx.inverse_X = inverse_X
        return x[order_X]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[ctx.inverse_X], None, None


class _RepeatRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, order_X: Tensor, inverse_X: Tensor, times: int) -> Tensor:
        ctx.inverse_X, ctx.times = inverse_X, times
        return x_TD[order_X // times]

    @staticmethod
    def backward(ctx: Any, grad_XD: Tensor) -> tuple[Tensor, None, None, None]:
        return _gather_sum(grad_XD, ctx.inverse_X, ctx.times), None, None, None


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_XD: Tensor, order_X: Tensor, inverse_X: Tensor, times: int) -> Tensor:
        ctx.order_X, ctx.times = order_X, times
        return _gather_sum(x_XD, inverse_X, times)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None, None]:
        return grad_TD[ctx.order_X // ctx.times], None, None, None
