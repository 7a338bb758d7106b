"""Our attention kernel over pages against the row-by-row reference, field by field and together.

The reference computes in float32 from the same values. Slots that no row sees hold NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import native
from selenite.ops.attention import attend, attend_reference, choose_attention
from selenite.ops.attention_context import Attended, StatsRequest, visible_keys
from selenite.ops.paged_attention import attend_paged, serves
from tests.fixtures.dense_attention import Case, Heads, paged_case

pytestmark = pytest.mark.skipif(
    not native.is_available(), reason=f"no kernel: {native.availability().reason}"
)
both = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
# Of the largest value. Probabilities and results keep 8 bits each in bfloat16; a result in float32
# sums hundreds of values. Logits are float32 sums of exact products.
OUT_TOLERANCE = {torch.float32: 5e-6, torch.bfloat16: 8e-3}
LOGIT_TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1e-5}
HEADS = [
    Heads(9, 3, 64, 64),
    Heads(4, 4, 48, 32),
    Heads(16, 2, 32, 32),  # always many queries of a key/value head
    Heads(6, 1, 24, 16),
    Heads(2, 2, 8, 12),  # values wider than keys
    Heads(3, 3, 5, 3),  # widths that no vector register likes
]
heads = st.sampled_from(HEADS)
page_sizes = st.sampled_from([1, 5, 16, 64])
histories = st.one_of(st.integers(0, 9), st.sampled_from([63, 64, 65, 200, 700, 1100]))


@st.composite
def cases(draw: st.DrawFn, is_tree: bool = False, shapes: st.SearchStrategy = heads) -> Case:
    news = st.integers(1, 9) if is_tree else st.one_of(st.just(1), st.integers(1, 70))
    sequences = draw(st.lists(st.tuples(histories, news), min_size=1, max_size=3))
    parents = None
    if is_tree:
        parents = [[draw(st.integers(-1, i - 1)) for i in range(new)] for _, new in sequences]
    size, placement = draw(page_sizes), draw(st.integers(0, 9))
    return of_unit_logits(paged_case(sequences, draw(shapes), size, placement, parents=parents))


def of_unit_logits(case: Case) -> Case:
    return replace(case, scale=case.q_TNH.shape[2] ** -0.5)


def to(case: Case, dtype: torch.dtype) -> Case:
    return replace(
        case,
        q_TNH=case.q_TNH.to(dtype),
        k_SMH=case.k_SMH.to(dtype),
        v_SMW=case.v_SMW.to(dtype),
    )


def with_bias(case: Case, width: int) -> Case:
    bias_SX = torch.randn(len(case.k_SMH), width) * 2
    bias_SX[case.k_SMH.isnan().all((1, 2))] = torch.nan
    return case.with_context(bias=bias_SX)


def with_select(case: Case, share: float) -> Case:
    """With the last key that a row sees, so that every head reads something."""
    select_TMS = torch.rand(len(case.visible), *case.k_SMH.shape[1::-1]) < share
    for row, keys in enumerate(case.visible):
        select_TMS[row, :, keys[-1]] = True
    return case.with_context(select=select_TMS)


def check(case: Case, dtype: torch.dtype, score_rows: tuple[int, ...] | None = None) -> None:
    if score_rows is None:
        score_rows = (0, len(case.visible) - 1)
    given_ = to(case, dtype)
    assert serves(*given_.inputs[:4])
    for kind in ("exact", "bound"):
        stats = StatsRequest(max_logit=kind, lse=True, score_rows=score_rows)  # type: ignore[arg-type]
        ours = attend_paged(*given_.with_context(stats=stats).inputs)
        expected = attend_reference(*to(given_, torch.float32).with_context(stats=stats).inputs)
        assert ours.out_TNW.dtype == dtype
        check_result(ours, expected, dtype)


def check_result(ours: Attended, expected: Attended, dtype: torch.dtype) -> None:
    close(ours.out_TNW, expected.out_TNW, OUT_TOLERANCE[dtype])
    close(ours.lse_TN, expected.lse_TN, LOGIT_TOLERANCE[dtype])
    close(ours.max_logit_N, expected.max_logit_N, LOGIT_TOLERANCE[dtype])
    assert ours.scores is not None
    assert expected.scores is not None
    assert ours.scores.keys() == expected.scores.keys()
    for row, scores_NK in expected.scores.items():
        close(ours.scores[row], scores_NK, LOGIT_TOLERANCE[dtype])


def close(ours: Tensor | None, expected: Tensor | None, tolerance: float) -> None:
    assert ours is not None
    assert expected is not None
    largest = float(expected[expected.isfinite()].abs().max())
    assert_close(ours.float(), expected, rtol=0, atol=tolerance * max(1.0, largest))


@settings(max_examples=40, deadline=None)
@given(cases(), DTYPES)
def test_rows_over_pages(case: Case, dtype: torch.dtype) -> None:
    check(case, dtype)


@settings(max_examples=30, deadline=None)
@given(cases(is_tree=True), DTYPES)
def test_token_trees(case: Case, dtype: torch.dtype) -> None:
    check(case, dtype)


@settings(max_examples=30, deadline=None)
@given(cases(), DTYPES, st.booleans())
def test_bias_by_key_and_head(case: Case, dtype: torch.dtype, per_query_head: bool) -> None:
    check(with_bias(case, (case.q_TNH if per_query_head else case.k_SMH).shape[1]), dtype)


@settings(max_examples=30, deadline=None)
@given(cases(), DTYPES, st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_select_of_one_key_to_all(case: Case, dtype: torch.dtype, share: float) -> None:
    check(with_select(case, share), dtype)


@settings(max_examples=30, deadline=None)
@given(st.booleans().flatmap(lambda tree: cases(tree)), DTYPES, st.booleans())
def test_all_fields_at_once(case: Case, dtype: torch.dtype, per_query_head: bool) -> None:
    case = with_bias(case, (case.q_TNH if per_query_head else case.k_SMH).shape[1])
    check(with_select(case, 0.3), dtype, tuple(range(len(case.visible))))


@both
@pytest.mark.parametrize("sequences", [[(300, 1), (5, 1)], [(40, 70)], [(600, 3)]])
def test_latent_entries(sequences: list[tuple[int, int]], dtype: torch.dtype) -> None:
    """One key/value head, whose values are the first columns of its keys: a view."""
    for shape in (Heads(4, 1, 80, 64), Heads(12, 1, 224, 192)):
        case = of_unit_logits(paged_case(sequences, shape, 16))
        case = replace(case, v_SMW=case.k_SMH[..., : shape.W])
        ours = attend_paged(*to(case, dtype).inputs).out_TNW
        views = to(case, dtype)
        views = replace(views, v_SMW=views.k_SMH[..., : shape.W])
        assert torch.equal(attend_paged(*views.inputs).out_TNW, ours)
        check(case, dtype)


# --- bits


SEQUENCES = [(70, 2), (0, 20), (1500, 1), (5, 1), (700, 90), (200, 3)]


def fields(case: Case) -> Case:
    """With every optional field that can be one by position: the same whatever the placement."""
    generator = torch.Generator().manual_seed(5)
    S, M = case.k_SMH.shape[:2]
    bias_SM = torch.full((S, M), torch.nan)
    select_TMS = torch.zeros(len(case.visible), M, S, dtype=torch.bool)
    for sequence, (start, stop, first) in enumerate(case.context.segments):
        slots = case.context.pages.slots(sequence)  # type: ignore[union-attr]
        bias_SM[slots] = torch.randn(len(slots), M, generator=generator)
        chosen = torch.rand(stop - start, M, first + stop - start, generator=generator) < 0.7
        chosen[..., 0] = True
        select_TMS[start:stop, :, slots] = chosen
    return case.with_context(bias=bias_SM, select=select_TMS)


def same(case: Case) -> Case:
    return case


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@both
@pytest.mark.parametrize("shape", HEADS[:3])
@pytest.mark.parametrize("change", [same, fields])
def test_page_size_placement_and_threads_do_not_matter(
    change: Callable[[Case], Case], shape: Heads, dtype: torch.dtype
) -> None:
    def result(size: int, placement: int, num_threads: int) -> tuple[Tensor, ...]:
        case = change(of_unit_logits(paged_case(SEQUENCES, shape, size, placement)))
        case = to(case, dtype).with_context(stats=StatsRequest("exact", lse=True))
        with threads(num_threads):
            found = attend_paged(*case.inputs)
        assert found.lse_TN is not None
        assert found.max_logit_N is not None
        return found.out_TNW, found.lse_TN, found.max_logit_N

    base = result(16, 0, 1)
    for size, placement, num_threads in (
        (16, 0, 2),
        (1, 1, 2),
        (7, 2, 1),
        (64, 3, 2),
        (2048, 4, 1),
    ):
        moved = result(size, placement, num_threads)
        assert all(map(torch.equal, base, moved)), (size, placement, num_threads)


@both
def test_other_sequences_do_not_matter(dtype: torch.dtype) -> None:
    """Nor do NaN entries of theirs."""
    case = to(of_unit_logits(paged_case(SEQUENCES, HEADS[0], 16)), dtype)
    clean = attend_paged(*case.inputs).out_TNW
    for sequence, (start, stop, first) in enumerate(case.context.segments):
        pages = case.context.pages
        assert pages is not None
        alone = case.with_context(
            positions_T=torch.arange(first, first + stop - start),
            sequence_T=torch.zeros(stop - start, dtype=torch.int64),
            segments=((0, stop - start, first),),
            pages=replace(
                pages,
                table_BP=pages.table_BP[sequence : sequence + 1],
                lengths=pages.lengths[sequence : sequence + 1],
            ),
        )
        alone = replace(alone, q_TNH=case.q_TNH[start:stop])
        assert torch.equal(attend_paged(*alone.inputs).out_TNW, clean[start:stop])
    slots = case.context.pages.slots(3)  # type: ignore[union-attr]
    case.k_SMH[slots] = torch.nan
    case.v_SMW[slots] = torch.nan
    harmed = attend_paged(*case.inputs).out_TNW
    rows = torch.arange(len(harmed)) != 23
    assert torch.equal(harmed[rows], clean[rows])
    assert harmed[23].isnan().all()


# --- what is not seen is not read


@both
@pytest.mark.parametrize("hidden", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", HEADS[:3])
def test_later_rows_cannot_matter(shape: Heads, hidden: float, dtype: torch.dtype) -> None:
    """Not even those of the same block of keys."""
    case = to(of_unit_logits(paged_case([(100, 30)], shape, 16)), dtype)
    clean = attend_paged(*case.inputs).out_TNW
    late = case.context.pages.slots(0)[110:]  # type: ignore[union-attr]
    case.k_SMH[late] = hidden
    case.v_SMW[late] = hidden
    harmed = attend_paged(*case.inputs).out_TNW
    # The values of a block that holds such are added up one by one.
    close(harmed[:10], clean[:10].float(), OUT_TOLERANCE[dtype])
    assert harmed[10:].isnan().all()


@both
def test_rejected_rows_of_a_tree_cannot_matter(dtype: torch.dtype) -> None:
    parents = [[-1, 0, 0, 1, 2]]
    for shape in HEADS[:3]:
        case = to(of_unit_logits(paged_case([(70, 5)], shape, 4, parents=parents)), dtype)
        clean = attend_paged(*case.inputs).out_TNW
        slots = case.context.pages.slots(0)[[70 + 1, 70 + 3]]  # type: ignore[union-attr]
        case.k_SMH[slots] = torch.nan
        case.v_SMW[slots] = torch.nan
        harmed = attend_paged(*case.inputs).out_TNW
        close(harmed[[0, 2, 4]], clean[[0, 2, 4]].float(), OUT_TOLERANCE[dtype])
        assert harmed[[1, 3]].isnan().all()


@both
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_keys_that_a_head_may_not_read_can_hold_nan(rows: int, dtype: torch.dtype) -> None:
    """In one key/value head, and for one of the rows."""
    case = to(of_unit_logits(paged_case([(90, rows)], HEADS[0], 16)), dtype)
    case = with_select(case, 1.0)
    select_TMS = case.context.select
    assert select_TMS is not None
    slot = case.visible[0][40]
    select_TMS[0, 1, slot] = False
    clean = attend_paged(*case.inputs).out_TNW
    case.k_SMH[slot, 1] = torch.nan
    case.v_SMW[slot, 1] = torch.nan
    harmed = attend_paged(*case.inputs).out_TNW
    close(harmed[0], clean[0].float(), OUT_TOLERANCE[dtype])
    assert harmed[1:, 3:6].isnan().all()
    assert torch.equal(harmed[:, :3], clean[:, :3])
    assert torch.equal(harmed[:, 6:], clean[:, 6:])


# --- the rest


@both
@pytest.mark.parametrize("size", [1e4, 1e-4])
@pytest.mark.parametrize("new", [1, 30])
def test_large_and_tiny_logits(new: int, size: float, dtype: torch.dtype) -> None:
    case = of_unit_logits(paged_case([(900, new)], HEADS[0], 16))
    case = to(replace(case, q_TNH=case.q_TNH * size), dtype)
    stats = StatsRequest("exact", lse=True)
    ours = attend_paged(*case.with_context(stats=stats).inputs)
    wide = to(case, torch.float32).with_context(stats=stats)
    expected = attend_reference(*wide.inputs)
    close(ours.max_logit_N, expected.max_logit_N, LOGIT_TOLERANCE[dtype])
    close(ours.lse_TN, expected.lse_TN, LOGIT_TOLERANCE[dtype])
    close(ours.out_TNW, expected.out_TNW, 3e-2)  # logits of 1e4 round at 1e-3, and so do weights


@both
def test_views_with_strides_give_the_same_bits(dtype: torch.dtype) -> None:
    case = with_select(to(of_unit_logits(paged_case([(90, 1), (9, 40)], HEADS[0], 16)), dtype), 0.5)
    expected = attend_paged(*case.inputs).out_TNW
    wide = torch.zeros(*case.q_TNH.shape[:2], 100, dtype=dtype)
    wide[..., 3:67] = case.q_TNH
    joined = torch.cat((case.k_SMH, case.v_SMW), -1)
    select_TMS, pages = case.context.select, case.context.pages
    assert select_TMS is not None
    assert pages is not None
    views = replace(
        case,
        q_TNH=wide[..., 3:67],
        k_SMH=joined[..., :64],
        v_SMW=joined[..., 64:],
    ).with_context(
        select=select_TMS.transpose(0, 1).contiguous().transpose(0, 1),
        pages=replace(pages, table_BP=torch.nn.functional.pad(pages.table_BP, (0, 3))[:, :-3]),
    )
    assert torch.equal(attend_paged(*views.inputs).out_TNW, expected)
    across = replace(case, q_TNH=case.q_TNH.transpose(1, 2).contiguous().transpose(1, 2))
    assert torch.equal(attend_paged(*across.inputs).out_TNW, expected)


def test_attend_takes_the_kernel_where_it_serves() -> None:
    case = with_bias(paged_case([(40, 2)], HEADS[0], 16), 3)
    stats = StatsRequest(score_rows=(1,))
    case = with_select(case.with_context(stats=stats), 0.5)
    assert choose_attention(*case.inputs[:4]).value == "paged"
    assert torch.equal(attend(*case.inputs).out_TNW, attend_paged(*case.inputs).out_TNW)
    half = replace(case, q_TNH=case.q_TNH.half(), k_SMH=case.k_SMH.half(), v_SMW=case.v_SMW.half())
    learning = replace(case, q_TNH=case.q_TNH.clone().requires_grad_())
    for other in (half, learning):
        assert choose_attention(*other.inputs[:4]).value == "reference"
    with torch.no_grad():
        assert choose_attention(*learning.inputs[:4]).value == "paged"


def test_statistics_are_absent_unless_requested() -> None:
    result = attend_paged(*paged_case([(3, 1)], HEADS[0], 16).inputs)
    assert (result.max_logit_N, result.lse_TN, result.scores) == (None, None, None)


def test_scores_are_in_logical_order_whatever_the_tree() -> None:
    """A parent may come after its child in the step."""
    case = paged_case([(4, 3)], HEADS[1], 2, parents=[[-1, -1, -1]])
    case = case.with_context(parent_T=torch.tensor([2, -1, 1]), stats=StatsRequest(score_rows=(0,)))
    assert len(visible_keys(case.context, 0)) == 7
    ours, expected = attend_paged(*case.inputs), attend_reference(*case.inputs)
    assert_close(ours.out_TNW, expected.out_TNW, atol=1e-5, rtol=0)
    assert ours.scores is not None
    assert expected.scores is not None
    assert_close(ours.scores[0], expected.scores[0], atol=1e-5, rtol=0)


def test_a_plan_without_storage_allocates_what_a_step_does() -> None:
    case = to(paged_case([(40, 2)], HEADS[0], 16), torch.bfloat16)
    q, k, v = (x.to("meta") for x in case.inputs[:3])
    assert attend_paged(q, k, v, case.context, 0.1).out_TNW.shape == (2, 9, 64)
