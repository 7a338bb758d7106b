"""RMSNorm (arXiv 1910.07467): scale each row by its root mean square, computed in float32."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x_TD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """``gain * x / rms(x)``, in the dtype of ``x``."""
    x32 = x_TD.float()
    normed = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)
    return (gain_D * normed).to(x_TD.dtype)
