"""Reordering rows against indexing and autograd's own gradients, in all paths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from selenite.ops.moe import dispatch
from selenite.ops.permute import repeat_rows, sum_rows

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
