"""Memory in large pages, where the system gives them on request (``madvise``).

For what a step reads from end to end once: weights and cached entries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selenite.ops import native


def empty_in_large_pages(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Like ``torch.empty``; elsewhere than on a CPU with our kernels it is nothing else."""
    memory = torch.empty(shape, dtype=dtype, device=device)
    if memory.device.type == "cpu" and native.is_available():
        native.call("prefer_large_pages", memory, memory.nbytes)
    return memory
