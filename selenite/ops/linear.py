"""The one place where the model multiplies by a weight matrix.

Activations carry the compute dtype; weights are float32 masters and are cast at the call, so that
a bf16 step and a float32 step run the same code.

Letters: ``I`` inputs, ``O`` outputs, ``R`` rank of an adapter.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops import native
from selenite.runtime import INVARIANT_ROWS, is_batch_invariant

_FEW = 64  # rows; of more, torch's product is as fast
_local = threading.local()


@contextmanager
def decoding(is_decode: bool) -> Iterator[None]:
    """Whether products of few rows, on this thread, are those of a step that only decodes.

    They may go through a kernel whose order of summation is another than torch's. A prompt's
    products never do, however small its chunks: what is cached of it must not depend on them.
    """
    _local.is_decoding = is_decode
    try:
        yield
    finally:
        _local.is_decoding = False


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """``x W^T + b`` in the dtype of ``x``; leading dimensions of ``x`` are free.

    In batch-invariant mode the rows are padded, so that a row's bits do not depend on their number
    (``runtime.enable_batch_invariant``), and bfloat16 values are multiplied in float32: the product
    of two is exact there, and the sum is rounded once.
    """
    weight = weight_OI.to(x_TI.dtype)
    bias = None if bias_O is None else bias_O.to(x_TI.dtype)
    if not is_batch_invariant():
        if bias is None and _is_few_rows(x_TI, weight):
            return _few_rows_linear(x_TI, weight)
        return F.linear(x_TI, weight, bias)
    rows = x_TI.flatten(0, -2)
    padded = F.pad(rows, (0, 0, 0, -len(rows) % INVARIANT_ROWS)).float()
    out = F.linear(padded, weight.float(), None if bias is None else bias.float())
    return out[: len(rows)].to(x_TI.dtype).view(*x_TI.shape[:-1], -1)


def _is_few_rows(x_TI: Tensor, weight_OI: Tensor) -> bool:
    """Whether the product mostly reads weights, and has a kernel for that."""
    return (
        getattr(_local, "is_decoding", False)
        and not torch.is_grad_enabled()
        and 0 < x_TI.shape[:-1].numel() <= _FEW
        and weight_OI.is_contiguous()
        and native.serves(x_TI)
        and native.instruction_set().value == "avx512_bf16"
    )


def _few_rows_linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """``csrc/linear.cpp``: torch's product reads weights at a third of the memory's speed."""
    rows_TI = x_TI.reshape(-1, x_TI.shape[-1])
    rows_TI = rows_TI if rows_TI.stride(1) == 1 else rows_TI.contiguous()
    outputs, inputs = weight_OI.shape
    out = rows_TI.new_empty(len(rows_TI), outputs)
    place = rows_TI, rows_TI.stride(0), weight_OI, out
    native.call("few_rows_linear", *place, len(rows_TI), inputs, outputs)
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
