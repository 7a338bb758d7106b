"""The largest logit, by every path and both kinds, over random documents, histories and padding.

QK-Clip divides by this number, so it is held tighter than outputs are: 1e-6 relative, which is ten
roundings of float32, for dot products of at most 24 terms.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.ops.attention import AttendFunction, attend_reference
from selenite.ops.attention_context import StatsRequest
from selenite.ops.causal_attention import attend_causal
from selenite.ops.tiled_attention import attend_tiled
from tests.fixtures.dense_attention import Case, Heads, dense, over_pages, packed_case, paged_case

heads = st.sampled_from([Heads(4, 4, 8, 8), Heads(4, 2, 8, 8), Heads(6, 1, 24, 16)])
documents = st.lists(st.integers(1, 300), min_size=1, max_size=4)  # of several query blocks
sequences = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 40)),  # entries before, and new rows
    min_size=1,
    max_size=4,
)


def statistic(path: AttendFunction, case: Case, kind: str) -> Tensor:
    stats = StatsRequest(max_logit=kind)  # type: ignore[arg-type]
    max_logit_N = path(*case.with_context(stats=stats).inputs).max_logit_N
    assert max_logit_N is not None
    return max_logit_N.double()


def check(path: AttendFunction, case: Case) -> None:
    expected = dense(case)
    exact, bound = statistic(path, case, "exact"), statistic(path, case, "bound")
    close = {"atol": 1e-6, "rtol": 1e-6}
    assert_close(exact, expected.max_TN.amax(0), **close)
    assert_close(exact, statistic(attend_reference, case, "exact"), **close)
    assert_close(bound, expected.lse_TN.amax(0), **close)
    assert_close(bound, statistic(attend_reference, case, "bound"), **close)
    num_keys = max(map(len, case.visible))
    rounding = 2e-6 * (1 + exact.abs())  # of both, as above
    assert (bound >= exact - rounding).all()
    assert (bound - exact <= math.log(num_keys) + rounding).all()


@pytest.mark.parametrize("path", [attend_causal, attend_tiled])
@settings(max_examples=12, deadline=None)
@given(documents, heads, st.integers(0, 99))
def test_causal_documents(path: AttendFunction, lengths: list[int], shape: Heads, seed: int):
    check(path, packed_case(lengths, shape, seed=seed))


@over_pages
@settings(max_examples=12, deadline=None)
@given(sequences, heads, st.sampled_from([1, 5, 16]), st.integers(0, 9))
def test_padded_pages(
    path: AttendFunction, rows: list[tuple[int, int]], shape: Heads, size: int, placement: int
):
    """The tails of pages are padding that holds NaN."""
    check(path, paged_case(rows, shape, size, placement))


@pytest.mark.parametrize("path", [attend_causal, attend_tiled])
def test_the_gap_is_the_whole_logarithm_where_logits_are_equal(path: AttendFunction):
    case = packed_case([70], Heads(2, 2, 8, 8))
    case.q_TNH.zero_()
    gap = statistic(path, case, "bound") - statistic(path, case, "exact")
    assert_close(gap, torch.full_like(gap, math.log(70)), atol=1e-6, rtol=0)
