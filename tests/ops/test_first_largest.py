"""The greedy token of rows, by kernel and by torch."""

from __future__ import annotations

import math

import pytest
import torch

from selenite.ops import native
from selenite.ops.sampling import first_largest

DTYPES = [torch.bfloat16, torch.float32, torch.float64]  # the last is torch's


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 5, 1024, 1025, 49_152])
def test_the_lowest_id_of_the_largest(dtype: torch.dtype, vocab_size: int) -> None:
    """Few different values, so that there are ties, also of other blocks."""
    logits_BV = torch.randint(-4, 1, (7, vocab_size)).to(dtype)
    tokens, largest = first_largest(logits_BV)
    for row_V, token, value in zip(logits_BV.tolist(), tokens, largest, strict=True):
        assert value == max(row_V)
        assert token == row_V.index(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number(dtype: torch.dtype) -> None:
    logits_BV = torch.randn(4, 3000).to(dtype)
    logits_BV[0, 2999] = math.nan
    logits_BV[1] = -math.inf
    logits_BV[2, 1500] = math.inf
    _, largest = first_largest(logits_BV)
    assert math.isnan(largest[0])
    assert largest[1:3] == [-math.inf, math.inf]
    assert math.isfinite(largest[3])


def test_rows_that_lie_apart() -> None:
    logits_BV = torch.randn(3, 50)[:, :40].bfloat16()[:, ::2]
    assert first_largest(logits_BV)[0] == logits_BV.float().argmax(1).tolist()


@pytest.mark.skipif(not native.is_available(), reason=native.availability().reason)
def test_the_kernel_is_what_serves() -> None:
    heard: list[str] = []
    with native.heard_by(lambda name, _: heard.append(name)):
        first_largest(torch.randn(2, 8).bfloat16())
    assert heard == ["first_largest"]
