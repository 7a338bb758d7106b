"""Reordering rows, with gradients that gather.

torch differentiates indexing by scattering with addition, which is slow and must assume that rows
repeat. Here ``repeat_rows`` and ``sum_rows`` are each other's gradient. In bfloat16 on the CPU
both are kernels of our own (``csrc/permute.cpp``), and so is a gathering of float32.

Letters: ``X`` rows in their new order, ``K`` copies of a row, ``Z`` rows of padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selenite.ops import native


def repeat_rows(x_TD: Tensor, source_X: Tensor, places_TK: Tensor) -> Tensor:
    """``x[source]``, where ``places[t]`` are the rows of the result that came from row ``t``.

    Rows that are in nobody's places are padding: they hold any row and pass no gradient on.
    """
    return _RepeatRows.apply(x_TD, source_X, places_TK)


def sum_rows(x_XD: Tensor, source_X: Tensor, places_TK: Tensor, padding_Z: Tensor) -> Tensor:
    """Sums the rows in each row's places, in order: ``[T, D]``; padding gets no gradient."""
    return _SumRows.apply(x_XD, source_X, places_TK, padding_Z)


def look_up(table_VD: Tensor, rows_T: Tensor) -> Tensor:
    """Row ``rows[t]`` of a table for each ``t``. In inference mode the kernel trusts that there is
    such a row."""
    if torch.is_inference_mode_enabled() and _is_gathered(table_VD, rows_T):
        return _gather(table_VD, rows_T)
    return torch.nn.functional.embedding(rows_T, table_VD)


def _gather(x_TD: Tensor, source_X: Tensor) -> Tensor:
    """``x[source]``."""
    if not _is_gathered(x_TD, source_X):
        return x_TD[source_X]
    out_XD = x_TD.new_empty(len(source_X), *x_TD.shape[1:])
    num_bytes = x_TD.shape[1:].numel() * x_TD.element_size()
    native.call("gather_rows", x_TD, source_X, out_XD, len(source_X), num_bytes)
    return out_XD


def _is_gathered(x_TD: Tensor, rows: Tensor) -> bool:
    """The kernels take dense tensors and trust that ``rows`` are rows of ``x``."""
    return _are_dense(x_TD, rows) and native.serves_inference(x_TD)


def _are_dense(x_TD: Tensor, rows: Tensor) -> bool:
    return x_TD.is_contiguous() and rows.is_contiguous() and rows.dtype == torch.int64


def _gather_sum(x_XD: Tensor, places_TK: Tensor) -> Tensor:
    # One addition after another in float32: the sum of a row never depends on the other rows.
    if _are_dense(x_XD, places_TK) and native.serves(x_XD):
        out_TD = x_XD.new_empty(len(places_TK), *x_XD.shape[1:])
        width = x_XD.shape[1:].numel()
        native.call("gather_sum", x_XD, places_TK, out_TD, *places_TK.shape, width)
        return out_TD
    total_TD = x_XD[places_TK[:, 0]].float()
    for k in range(1, places_TK.shape[1]):
        total_TD += x_XD[places_TK[:, k]]
    return total_TD.to(x_XD.dtype)


class _RepeatRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, source_X: Tensor, places_TK: Tensor) -> Tensor:
        ctx.places_TK = places_TK
        return _gather(x_TD, source_X)

    @staticmethod
    def backward(ctx: Any, grad_XD: Tensor) -> tuple[Tensor, None, None]:
        return _gather_sum(grad_XD, ctx.places_TK), None, None


class _SumRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_XD: Tensor, source_X: Tensor, places_TK: Tensor, padding_Z: Tensor
    ) -> Tensor:
        ctx.source_X, ctx.padding_Z = source_X, padding_Z
        return _gather_sum(x_XD, places_TK)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None, None]:
        grad_XD = _gather(grad_TD, ctx.source_X).index_fill_(0, ctx.padding_Z, 0)
        return grad_XD, None, None, None
