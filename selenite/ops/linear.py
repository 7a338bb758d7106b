"""The one place where the model multiplies by a weight matrix.

Activations carry the compute dtype; weights are float32 masters and are cast at the call, so that
a bf16 step and a float32 step run the same code.

Letters: ``I`` inputs, ``O`` outputs, ``R`` rank of an adapter.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops import native
from selenite.runtime import INVARIANT_ROWS, is_batch_invariant

_PANEL = 32  # rows of a weight; ``csrc/linear.cpp``
FEW_ROWS = 64  # that ``csrc/linear_float.cpp`` multiplies no slower than torch


def linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """``x W^T`` in the dtype of ``x``; leading dimensions of ``x`` are free.

    In batch-invariant mode the rows are padded, so that a row's bits do not depend on their number
    (``runtime.enable_batch_invariant``), and bfloat16 values are multiplied in float32: the product
    of two is exact there, and the sum is rounded once.
    """
    weight = weight_OI.to(x_TI.dtype)
    if not is_batch_invariant():
        if can_pack(weight) and weight.is_contiguous():
            return _KernelLinear.apply(x_TI, weight)
        are_few = x_TI.numel() <= FEW_ROWS * x_TI.shape[-1]
        if are_few and not torch.is_grad_enabled() and _is_streamed(weight):
            return _by_kernel("linear_float", x_TI, (weight,), len(weight))
        return F.linear(x_TI, weight)
    rows = x_TI.flatten(0, -2)
    padded = F.pad(rows, (0, 0, 0, -len(rows) % INVARIANT_ROWS)).float()
    out = F.linear(padded, weight.float())
    return out[: len(rows)].to(x_TI.dtype).view(*x_TI.shape[:-1], -1)


def _is_streamed(weight_OI: Tensor) -> bool:
    """Whether few rows are multiplied by our float32 kernel, which reads the weight at the memory's
    speed. Where there is AVX-512, float32 is not what anyone serves in."""
    return (
        native.instruction_set().value == "avx2"
        and native.serves(weight_OI, (torch.float32,))
        and weight_OI.is_contiguous()
    )


class Packed(NamedTuple):
    """A weight in the order in which ``csrc/linear.cpp`` reads it, made by ``pack``."""

    values: Tensor  # bfloat16 or int8, flat
    outputs: int
    scale_O: Tensor | None  # float32, of an int8 weight

    @property
    def num_bytes(self) -> int:
        """That it takes."""
        return self.values.nbytes + (0 if self.scale_O is None else self.scale_O.nbytes)


def can_pack(weight_OI: Tensor) -> bool:
    """Whether there is a kernel for the weight's packed form."""
    return (
        weight_OI.dim() == 2
        and weight_OI.shape[1] % 2 == 0
        and native.serves(weight_OI)
        and native.instruction_set().value == "avx512_bf16"
    )


def most_recorded(weight_OI: Tensor) -> int:
    """The most rows whose product by such a weight, in inference, is our kernels': a tape holds no
    others (``ops/tape.py``)."""
    if can_pack(weight_OI):
        return sys.maxsize
    return FEW_ROWS if _is_streamed(weight_OI) else 0


def packed_size(weight_OI: Tensor) -> int:
    """Values of a packed weight."""
    outputs, inputs = weight_OI.shape
    return -(-outputs // _PANEL) * _PANEL * inputs


def pack(weight_OI: Tensor, values: Tensor) -> Packed:
    """A bfloat16 weight for ``packed_linear``, if ``can_pack``.

    Args:
        weight_OI: the weight.
        values: where its ``packed_size`` values go, bfloat16 or int8. In int8 each row has a scale,
            its largest value over 127.
    """
    assert len(values) == packed_size(weight_OI), (len(values), weight_OI.shape)
    scale_O = None
    weight_OI = weight_OI.detach().contiguous()
    if values.dtype == torch.int8:
        largest_O1 = weight_OI.float().abs().amax(1, keepdim=True)
        scale_O1 = (largest_O1 / 127).clamp(min=torch.finfo(torch.float32).tiny)
        weight_OI, scale_O = (weight_OI / scale_O1).round().to(torch.int8), scale_O1[:, 0]
    outputs, inputs = weight_OI.shape
    kernel = "pack_linear" if scale_O is None else "pack_linear_int8"
    native.call(kernel, weight_OI, values, inputs, outputs)
    return Packed(values, outputs, scale_O)


def packed_linear(x_TI: Tensor, weight: Packed) -> Tensor:
    """``linear`` by a packed weight; without gradient. A row's bits are those of ``linear`` with
    the weight as it was (but for int8), and do not depend on the number of rows."""
    assert not (x_TI.requires_grad and torch.is_grad_enabled())
    if weight.scale_O is None:
        return _by_kernel("linear_packed", x_TI, (weight.values,), weight.outputs)
    return _by_kernel("linear_packed_int8", x_TI, (weight.values, weight.scale_O), weight.outputs)


class _KernelLinear(torch.autograd.Function):
    """Our product in training's forward pass too, so that it has the bits of inference."""

    @staticmethod
    def forward(ctx: Any, x_TI: Tensor, weight_OI: Tensor) -> Tensor:
        ctx.save_for_backward(x_TI, weight_OI)
        return _by_kernel("linear_rows", x_TI, (weight_OI,), len(weight_OI))

    @staticmethod
    def backward(ctx: Any, grad_TO: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x_TI, weight_OI = ctx.saved_tensors
        wants_x, wants_weight = ctx.needs_input_grad
        grad_x = grad_TO @ weight_OI if wants_x else None
        rows_TO, rows_TI = grad_TO.flatten(0, -2), x_TI.flatten(0, -2)
        return grad_x, rows_TO.T @ rows_TI if wants_weight else None


def _by_kernel(kernel: str, x_TI: Tensor, weight: tuple[Tensor, ...], outputs: int) -> Tensor:
    rows_TI = x_TI.reshape(-1, x_TI.shape[-1])
    rows_TI = rows_TI if rows_TI.stride(1) == 1 else rows_TI.contiguous()
    out = rows_TI.new_empty(len(rows_TI), outputs)
    sizes = len(rows_TI), rows_TI.shape[1], outputs
    native.call(kernel, rows_TI, rows_TI.stride(0), *weight, out, *sizes)
    return out.view(*x_TI.shape[:-1], outputs)


class LowRank(NamedTuple):
    """What LoRA adds to a weight: ``scale * B A`` (arXiv 2106.09685, section 4.1).

    Belongs to an ``Adapter`` of ``model/layers.py``. Beside a stacked weight both have a leading
    ``E``: each expert has its own.
    """

    a_RI: Tensor
    b_OR: Tensor
    scale: float


def low_rank(x_TI: Tensor, lora: LowRank) -> Tensor:
    """What ``lora`` adds to ``linear(x, weight)``, without the matrix that it stands for."""
    return linear(linear(x_TI, lora.a_RI) * lora.scale, lora.b_OR)


def low_rank_weight(lora: LowRank) -> Tensor:
    """The matrix that ``lora`` stands for; ``[E, O, I]`` beside a stacked weight."""
    return lora.scale * (lora.b_OR @ lora.a_RI)


def head_linear(x_TNI: Tensor, weight_NIO: Tensor) -> Tensor:
    """Each head's rows times the head's own matrix: ``[T, N, O]`` in the dtype of ``x``."""
    return torch.bmm(x_TNI.transpose(0, 1), weight_NIO.to(x_TNI.dtype)).transpose(0, 1)
