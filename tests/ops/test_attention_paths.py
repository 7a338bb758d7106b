"""Every fast path of attention equals the reference, value and gradient.

Tolerances: as in ``test_attention_reference.py``; gradients sum over rows as well, and the flash
kernel recomputes the weights from a rounded log-sum-exp, so they get 1e-4.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import causal_attention, paged_attention
from selenite.ops.attention import AttendFunction, attend, attend_reference, choose_attention
from selenite.ops.attention_context import StatsRequest
from selenite.ops.causal_attention import attend_causal
from selenite.ops.paged_attention import attend_paged
from selenite.ops.segment_attention import attend_segments
from selenite.ops.tiled_attention import KEY_TILE, QUERY_TILE, attend_tiled
from tests.fixtures.dense_attention import Case, Heads, over_pages, packed_case, paged_case

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
HEADS = [
    Heads(4, 4, 8, 8),
    Heads(4, 2, 8, 8),
    Heads(6, 1, 24, 16),
    Heads(2, 2, 8, 12),  # values wider than keys
    Heads(3, 3, 5, 3),  # widths that no vector register likes
]
heads = st.sampled_from(HEADS)
lengths = st.lists(
    st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 63, 64, 65, 70])),
    min_size=1,
    max_size=5,
)
sequences = st.lists(
    st.tuples(st.integers(0, 80), st.one_of(st.just(1), st.integers(1, 40))),
    min_size=1,
    max_size=4,
)


def check(path: AttendFunction, case: Case) -> None:
    for kind in ("exact", "bound"):
        case = case.with_context(stats=StatsRequest(max_logit=kind, lse=True))
        expected = attend_reference(*case.inputs)
        result = path(*case.inputs)
        assert result.out_TNW.isfinite().all()
        assert_close(result.out_TNW, expected.out_TNW, **TOLERANCE)
        assert_close(result.lse_TN, expected.lse_TN, **TOLERANCE)
        assert_close(result.max_logit_N, expected.max_logit_N, **TOLERANCE)
        assert result.max_logit_N is not None
        assert not result.max_logit_N.requires_grad


@pytest.mark.parametrize("path", [attend_causal, attend_tiled])
@settings(max_examples=15, deadline=None)
@given(lengths, heads)
def test_packed_documents(path: AttendFunction, documents: list[int], shape: Heads) -> None:
    check(path, packed_case(documents, shape))


@over_pages
@settings(max_examples=15, deadline=None)
@given(sequences, heads, st.sampled_from([1, 5, 16, 64]), st.integers(0, 9))
def test_rows_over_shuffled_pages(
    path: AttendFunction, sequences: list[tuple[int, int]], shape: Heads, size: int, placement: int
) -> None:
    """Slots that nobody sees hold NaN; see ``paged_case``."""
    check(path, paged_case(sequences, shape, size, placement))


@over_pages
def test_neighbours_do_not_matter(path: AttendFunction) -> None:
    """A sequence over NaN entries harms itself alone."""
    case = paged_case([(9, 3), (12, 1), (0, 5)], HEADS[1], 4)
    clean = path(*case.inputs).out_TNW
    slots = case.context.pages.slots(1)  # type: ignore[union-attr]
    case.k_SMH[slots] = torch.nan
    case.v_SMW[slots] = torch.nan
    harmed = path(*case.inputs).out_TNW
    others = [0, 1, 2, 4, 5, 6, 7, 8]
    assert torch.equal(harmed[others], clean[others])
    assert harmed[3].isnan().all()


@over_pages
def test_page_size_and_placement_do_not_matter(path: AttendFunction) -> None:
    """Entries are gathered in logical order, so even the bits are the same."""
    sequences = [(70, 2), (0, 20), (5, 1)]
    base = path(*paged_case(sequences, HEADS[1], 16).inputs).out_TNW
    for size, placement in ((1, 1), (7, 2), (128, 3)):
        moved = path(*paged_case(sequences, HEADS[1], size, placement).inputs).out_TNW
        assert torch.equal(base, moved), (size, placement)


def gradients(path: AttendFunction, case: Case) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in (case.q_TNH, case.k_SMH, case.v_SMW)]
    out = path(*leaves, case.context, case.scale).out_TNW
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9))
    return torch.autograd.grad((out * weights).sum(), leaves)


@pytest.mark.parametrize("shape", HEADS)
@pytest.mark.parametrize("path", [attend_causal, attend_tiled])
@pytest.mark.parametrize("kind", [None, "exact", "bound"])
def test_gradients(path: AttendFunction, shape: Heads, kind: str | None) -> None:
    """Statistics take no part in the gradient."""
    documents = [3, QUERY_TILE + 1, 3, KEY_TILE + 2, 1]
    case = packed_case(documents, shape, stats=StatsRequest(max_logit=kind))  # type: ignore[arg-type]
    plain = packed_case(documents, shape)
    expected, found = gradients(attend_reference, plain), gradients(path, case)
    for mine, reference in zip(found, expected, strict=True):
        assert_close(mine, reference, atol=1e-4, rtol=1e-4)


def test_exact_maximum_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocked maximum with blocks far smaller than the documents, at the borders too."""
    monkeypatch.setattr(causal_attention, "_QUERY_BLOCK", 8)
    monkeypatch.setattr(causal_attention, "_BLOCK_ELEMENTS", 100)
    for length in (1, 7, 8, 9, 31):
        check(attend_causal, packed_case([length, length, 5], HEADS[1], seed=length))


def test_exact_maximum_ignores_the_future() -> None:
    """The largest product is one that the mask hides: query 0 with key 5."""
    case = packed_case([8], Heads(1, 1, 4, 4), stats=StatsRequest("exact"))
    case.k_SMH[5] = case.q_TNH[0] * 100
    case.q_TNH[5:] = 0
    for path in (attend_causal, attend_tiled):
        assert_close(
            path(*case.inputs).max_logit_N, attend_reference(*case.inputs).max_logit_N, **TOLERANCE
        )


def test_maximum_of_bfloat16_is_exact() -> None:
    """Logits of size 50 would be off by 0.1 in bf16 products; the statistic multiplies wider."""
    case = packed_case([40], Heads(2, 2, 16, 16), stats=StatsRequest("exact"))
    case = replace(
        case, q_TNH=(case.q_TNH * 6).bfloat16(), k_SMH=(case.k_SMH * 6).bfloat16(),
        v_SMW=case.v_SMW.bfloat16(),
    )  # fmt: skip
    found, expected = attend_causal(*case.inputs), attend_reference(*case.inputs)
    assert expected.max_logit_N is not None
    assert expected.max_logit_N.min() > 40
    assert_close(found.max_logit_N, expected.max_logit_N, atol=0, rtol=1e-5)
    # The output is a mean of bf16 values with bf16 weights: 2**-8 relative, of values up to 4.
    assert_close(found.out_TNW, expected.out_TNW, atol=3e-2, rtol=2e-2)


@pytest.mark.parametrize("path", [attend_causal, attend_tiled])
def test_bound_is_within_the_log_of_the_number_of_keys(path: AttendFunction) -> None:
    for length in (1, 2, 65):
        exact = packed_case([length, 1], HEADS[0], stats=StatsRequest("exact"))
        bound = exact.with_context(stats=StatsRequest("bound"))
        low, high = path(*exact.inputs).max_logit_N, path(*bound.inputs).max_logit_N
        assert low is not None
        assert high is not None
        assert (high >= low - 1e-6).all()  # float32 rounding of the log-sum-exp
        assert (high - low <= math.log(length) + 1e-6).all()


def test_huge_logits_stay_finite() -> None:
    case = packed_case([20], HEADS[0])
    case = replace(case, q_TNH=case.q_TNH * 1e4)
    expected = attend_reference(*case.inputs).out_TNW
    for path in (attend_causal, attend_tiled):
        # Logits of 1e4 round at 1e-3, and so do the weights.
        assert_close(path(*case.inputs).out_TNW, expected, atol=1e-2, rtol=1e-2)


def test_attend_chooses_by_the_context() -> None:
    packed, paged = packed_case([5, 3], HEADS[1]), paged_case([(4, 1)], HEADS[1], 4)
    assert choose_attention(*packed.inputs[:4]).value == "causal"
    assert torch.equal(attend(*packed.inputs).out_TNW, attend_causal(*packed.inputs).out_TNW)
    by_kernel = paged_attention.serves(*paged.inputs[:4])
    assert choose_attention(*paged.inputs[:4]).value == ("paged" if by_kernel else "segment")
    expected = (attend_paged if by_kernel else attend_segments)(*paged.inputs).out_TNW
    assert torch.equal(attend(*paged.inputs).out_TNW, expected)
