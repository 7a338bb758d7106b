"""Memory of cached entries: slots that are NaN until rows are stored in them.

Letters: ``T`` rows, ``S`` slots, ``M`` heads of an entry, ``H`` their width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.large_pages import empty_in_large_pages


def empty_slots(
    num_slots: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """NaN ``[num_slots, *shape]``."""
    return empty_in_large_pages((num_slots, *shape), dtype, device).fill_(torch.nan)


def store_rows(stored_SMH: Tensor, x_TMH: Tensor, slots_T: Tensor) -> None:
    """``stored[slots] = x`` without gradient; a slot of -1 stores nothing."""
    is_served = (
        x_TMH.device.type == "cpu"
        and x_TMH.stride(2) == 1
        and x_TMH.dtype == stored_SMH.dtype
        and stored_SMH.is_contiguous()
        and native.is_available()
    )
    if not is_served:
        kept = slots_T >= 0
        stored_SMH[slots_T[kept]] = x_TMH[kept].detach()
        return
    assert slots_T.dtype == torch.int64, slots_T.dtype
    assert slots_T.is_contiguous(), slots_T.stride()
    size = x_TMH.element_size()
    T, M, H = x_TMH.shape
    strides = (stride * size for stride in x_TMH.stride()[:2])
    native.call("store_rows", x_TMH, *strides, slots_T, stored_SMH, T, M, H * size)
