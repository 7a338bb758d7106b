"""Element-wise functions whose result must not depend on where in a tensor a value lies.

torch's vectorised kernels compute the last few elements of a tensor (or of a thread's share of
it) by another code path, which may differ in the last bit. In batch-invariant mode the input is
padded so that every share is a whole number of vectors.

On the CPU ``swiglu`` is a kernel of our own (``csrc/swiglu.cpp``) in bfloat16, and in float32
without gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops import native
from selenite.runtime import is_batch_invariant

# Four AVX-512 vectors of float32: the widest unrolled step of torch's element-wise loops.
_VECTOR = 64


def _elementwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if not is_batch_invariant():
        return function(x)
    multiple = _VECTOR * torch.get_num_threads()
    padded = F.pad(x.reshape(-1), (0, -x.numel() % multiple))
    return function(padded)[: x.numel()].view(x.shape)


def sigmoid(x: Tensor) -> Tensor:
    """``1 / (1 + exp(-x))``."""
    return _elementwise(torch.sigmoid, x)


def exp(x: Tensor) -> Tensor:
    """``e ** x``."""
    return _elementwise(torch.exp, x)


def add(x: Tensor, y: Tensor) -> Tensor:
    """``x + y`` of one shape; without gradient a kernel of our own, which a tape can hold."""
    if (
        torch.is_grad_enabled()
        or not native.serves_inference(x)
        or not (x.is_contiguous() and y.is_contiguous())
    ):
        return x + y
    assert (x.shape, x.dtype) == (y.shape, y.dtype), (x.shape, x.dtype, y.shape, y.dtype)
    out = torch.empty_like(x)
    native.call(native.of_dtype("add_values", x), x, y, out, x.numel())
    return out


def swiglu(gate_TF: Tensor, up_TF: Tensor, weight_T1: Tensor | None = None) -> Tensor:
    """``silu(gate) * up`` (arXiv 2002.05202), each row times its weight if there are weights."""
    if native.serves_inference(gate_TF):
        weights = None if weight_T1 is None else weight_T1.float().contiguous()
        return _SwiGLUByKernel.apply(gate_TF.contiguous(), up_TF.contiguous(), weights)
    out_TF = _elementwise(F.silu, gate_TF) * up_TF
    return out_TF if weight_T1 is None else out_TF * weight_T1.to(out_TF.dtype)


class _SwiGLUByKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_TF: Tensor, up_TF: Tensor, weight_T1: Tensor | None) -> Tensor:
        assert gate_TF.shape == up_TF.shape, (gate_TF.shape, up_TF.shape)
        ctx.save_for_backward(gate_TF, up_TF, weight_T1)
        out_TF = torch.empty_like(gate_TF)
        shape = gate_TF.shape[:-1].numel(), gate_TF.shape[-1]
        kernel = native.of_dtype("swiglu_forward", gate_TF)
        native.call(kernel, gate_TF, up_TF, weight_T1, out_TF, *shape)
        return out_TF

    @staticmethod
    def backward(ctx: Any, grad_TF: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        gate_TF, up_TF, weight_T1 = ctx.saved_tensors
        grads = (
            torch.empty_like(gate_TF),
            torch.empty_like(up_TF),
            None if weight_T1 is None else torch.empty_like(weight_T1),
        )
        shape = gate_TF.shape[:-1].numel(), gate_TF.shape[-1]
        saved = gate_TF, up_TF, weight_T1
        native.call("swiglu_backward", *saved, grad_TF.contiguous(), *grads, *shape)
        return grads
