"""RMSNorm (arXiv 1910.07467): scale each row by its root mean square, computed in float32.

Only the input and one number a row are kept for the gradient, which is written out:
``dx = r (g - n mean(g n))`` with ``g = gain dy``, ``r = 1 / rms(x)`` and ``n = r x``.
On the CPU both passes are kernels of our own (``csrc/rms_norm.cpp``) in bfloat16, and inference is
in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selenite.ops import native

# Rows whose gradients by the gain are summed one after another: the order of a sum must not depend
# on the number of threads.
_BLOCK = 128


def rms_norm(x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """``gain * x / rms(x)``, in the dtype of ``x``."""
    if native.serves_inference(x_TD) and gain_D.dtype == torch.float32:
        # Slices of wider rows are read where they are.
        rows_TD = x_TD.reshape(-1, x_TD.shape[-1])
        rows_TD = rows_TD if rows_TD.stride(1) == 1 else rows_TD.contiguous()
        return _RMSNormByKernel.apply(rows_TD, gain_D.contiguous(), eps).view(x_TD.shape)
    return _RMSNorm.apply(x_TD, gain_D, eps)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
        x32_TD = x_TD.float()
        scale_T1 = torch.rsqrt(x32_TD.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x_TD, gain_D, scale_T1)
        return (x32_TD * scale_T1).mul_(gain_D).to(x_TD.dtype)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, Tensor, None]:
        x_TD, gain_D, scale_T1 = ctx.saved_tensors
        normed_TD = x_TD.float() * scale_T1
        grad32_TD = grad_TD.float()
        product_TD = grad32_TD * normed_TD
        dgain_D = product_TD.sum(tuple(range(product_TD.dim() - 1)))
        mean_T1 = (product_TD @ gain_D.float()[:, None]) / x_TD.shape[-1]
        dx_TD = (grad32_TD * gain_D).sub_(normed_TD.mul_(mean_T1)).mul_(scale_T1)
        return dx_TD.to(x_TD.dtype), dgain_D.to(gain_D.dtype), None


class _RMSNormByKernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
        out_TD = x_TD.new_empty(x_TD.shape)
        scale_T = gain_D.new_empty(len(x_TD))
        ctx.save_for_backward(x_TD, gain_D, scale_T)
        place = x_TD, x_TD.stride(0), gain_D
        kernel = native.of_dtype("rms_norm_forward", x_TD)
        native.call(kernel, *place, out_TD, scale_T, float(eps), *x_TD.shape)
        return out_TD

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, Tensor, None]:
        x_TD, gain_D, scale_T = ctx.saved_tensors
        rows, width = x_TD.shape
        dx_TD = x_TD.new_empty(rows, width)
        dgain_BD = gain_D.new_empty(-(-rows // _BLOCK), width)
        native.call(
            "rms_norm_backward",
            *(x_TD, x_TD.stride(0), gain_D, scale_T, grad_TD.contiguous(), dx_TD, dgain_BD),
            *(_BLOCK, rows, width),
        )
        return dx_TD, dgain_BD.sum(0), None
