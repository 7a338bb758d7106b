"""Element-wise functions whose result must not depend on where in a tensor a value lies.

torch's vectorised kernels compute the last few elements of a tensor (or of a thread's share of
it) by another code path, which may differ in the last bit. In batch-invariant mode the input is
padded so that every share is a whole number of vectors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def swiglu(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """``silu(gate) * up`` (arXiv 2002.05202)."""
    return _elementwise(F.silu, gate_TF) * up_TF
