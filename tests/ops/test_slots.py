"""Memory of cached entries, with our kernels and without."""

from __future__ import annotations

import pytest
import torch

from selenite.ops import native
from selenite.ops.slots import empty_slots, store_rows


@pytest.fixture(params=["with kernels", "without"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without":
        monkeypatch.setattr(native, "is_available", lambda: False)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 3])
def test_rows_are_stored_in_slots(dtype: torch.dtype, heads: int) -> None:
    """Of a view, as latent attention expands values; -1 stores nothing."""
    wide = torch.randn(5, heads, 11).to(dtype)
    slots_T = torch.tensor([3, -1, 0, 6, -1])
    for x in (
        wide,
        wide[..., 2:9],
        wide[..., ::2],
        wide.transpose(0, 1).contiguous().transpose(0, 1),
    ):
        stored = empty_slots(7, tuple(x.shape[1:]), dtype, "cpu")
        assert stored.isnan().all()
        store_rows(stored, x, slots_T)
        assert torch.equal(stored[[3, 0, 6]], x[[0, 2, 3]])
        assert stored[[1, 2, 4, 5]].isnan().all()
