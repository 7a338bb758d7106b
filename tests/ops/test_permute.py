"""Reordering rows against indexing and autograd's own gradients, in all paths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selenite.ops.moe import dispatch
from selenite.ops.permute import repeat_rows, store_rows, sum_rows

E = 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alignment", [1, 8])
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (7, 3), (30, 33), (30, 2, 300)])
def test_there_and_back_equals_indexing(
    shape: tuple[int, ...], alignment: int, dtype: torch.dtype
) -> None:
    """With padding rows, which must not reach any sum. Small integers: every sum is exact."""
    T, K = shape[0], 3
    generator = torch.Generator().manual_seed(T)
    ids_TK = torch.rand(T, E, generator=generator).topk(K).indices.sort(-1).values
    to = dispatch(ids_TK, E, alignment)
    source_X = to.slot_X // K
    x, grad = (torch.randint(-8, 9, shape, generator=generator).to(dtype) for _ in range(2))
    x.requires_grad_()
    ones = (1,) * (len(shape) - 1)
    factors_X = (torch.arange(len(source_X)) % 3 + 1).view(-1, *ones).to(dtype)

    moved = repeat_rows(x, source_X, to.places_TK)
    assert torch.equal(moved, x[source_X])
    out = sum_rows(moved * factors_X, source_X, to.places_TK, to.padding_Z)
    expected = (x[source_X] * factors_X)[to.places_TK].sum(1)

    def gradient(of: Tensor) -> Tensor:
        return torch.autograd.grad(of, x, grad)[0]

    assert out.dtype == dtype
    assert torch.equal(out, expected)
    assert torch.equal(gradient(out), gradient(expected))


def test_sums_are_made_in_float32() -> None:
    """In bfloat16, 256 + 1 is 256."""
    x = torch.tensor([[256.0], [1.0], [1.0]]).bfloat16()
    places = torch.tensor([[0, 1, 2]])
    out = sum_rows(x, torch.zeros(3, dtype=torch.int64), places, places[0, :0])
    assert out.item() == 258.0


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
        stored = torch.full((7, *x.shape[1:]), torch.nan, dtype=dtype)
        store_rows(stored, x, slots_T)
        assert torch.equal(stored[[3, 0, 6]], x[[0, 2, 3]])
        assert stored[[1, 2, 4, 5]].isnan().all()
