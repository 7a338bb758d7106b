"""RMSNorm (arXiv 1910.07467): scale each row by its root mean square, computed in float32.

Only the input and one number a row are kept for the gradient, which is written out:
``dx = r (g - n mean(g n))`` with ``g = gain dy``, ``r = 1 / rms(x)`` and ``n = r x``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rms_norm(x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """``gain * x / rms(x)``, in the dtype of ``x``."""
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
