"""The attention reference against a dense masked softmax, for every field of the context.

Tolerance: values are of order one and a row sums at most about 60 of them in float32, which
rounds at 6e-8; 1e-5 leaves a margin of ten over the largest difference.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from selenite import log
from selenite.ops.attention import attend, attend_reference
from selenite.ops.attention_context import StatsRequest, visible_keys
from tests.fixtures.dense_attention import Case, Heads, dense, packed_case, paged_case

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
HEADS = [Heads(4, 4, 8, 8), Heads(4, 2, 8, 8), Heads(4, 1, 12, 8), Heads(2, 2, 8, 12)]
heads = st.sampled_from(HEADS)
page_sizes = st.sampled_from([1, 3, 4, 16])


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[list[int]]]:
    """Sequences with a history, and a token tree of new rows for each."""
    sequences, parents = [], []
    for _ in range(draw(st.integers(1, 3))):
        new = draw(st.integers(1, 7))
        sequences.append((draw(st.integers(0, 20)), new))
        parents.append([draw(st.integers(-1, i - 1)) for i in range(new)])
    return sequences, parents


def check(case: Case) -> None:
    expected = dense(case)
    stats = StatsRequest(max_logit="exact", lse=True, score_rows=tuple(range(len(case.visible))))
    result = attend_reference(*case.with_context(stats=stats).inputs)
    assert_close(result.out_TNW.double(), expected.out_TNW, **TOLERANCE)
    assert result.lse_TN is not None
    assert result.max_logit_N is not None
    assert result.scores is not None
    assert_close(result.lse_TN.double(), expected.lse_TN, **TOLERANCE)
    assert_close(result.max_logit_N.double(), expected.max_TN.amax(0), **TOLERANCE)
    for row, keys in enumerate(case.visible):
        assert_close(result.scores[row].double(), expected.logits_TNS[row][:, keys], **TOLERANCE)
    bound = case.with_context(stats=StatsRequest(max_logit="bound"))
    above = attend_reference(*bound.inputs).max_logit_N
    assert above is not None
    assert_close(above.double(), expected.lse_TN.amax(0), **TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), heads)
def test_documents_see_themselves_alone(lengths: list[int], shape: Heads) -> None:
    check(packed_case(lengths, shape))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=3),
    heads,
    page_sizes,
)
def test_rows_over_pages(sequences: list[tuple[int, int]], shape: Heads, size: int) -> None:
    check(paged_case(sequences, shape, size))


@settings(max_examples=25, deadline=None)
@given(trees(), heads, page_sizes)
def test_tree_rows_see_history_ancestors_and_themselves(
    tree: tuple[list[tuple[int, int]], list[list[int]]], shape: Heads, size: int
) -> None:
    check(paged_case(tree[0], shape, size, parents=tree[1]))


def test_tree_without_pages() -> None:
    case = packed_case([5, 3], HEADS[1])
    parent_T = torch.tensor([-1, 0, 0, 2, 1, -1, 5, 5])
    visible = [[0], [0, 1], [0, 2], [0, 2, 3], [0, 1, 4], [5], [5, 6], [5, 7]]
    check(replace(case, visible=visible).with_context(parent_T=parent_T))


def test_rejected_rows_do_not_matter() -> None:
    """Rows 1 and 3 of the tree hold NaN; the rows that do not descend from them are unharmed."""
    parents = [[-1, 0, 0, 1, 2]]
    case = paged_case([(6, 5)], HEADS[1], page_size=4, parents=parents)
    slots = case.context.pages.slots(0)  # type: ignore[union-attr]
    clean = attend_reference(*case.inputs).out_TNW
    for tensor in (case.k_SMH, case.v_SMW):
        tensor[slots[[6 + 1, 6 + 3]]] = torch.nan
    harmed = attend_reference(*case.inputs).out_TNW
    assert torch.equal(harmed[[0, 2, 4]], clean[[0, 2, 4]])
    assert harmed[[1, 3]].isnan().all()


@pytest.mark.parametrize("per", ["kv head", "query head"])
@pytest.mark.parametrize("shape", HEADS)
def test_bias_by_key_and_head(per: str, shape: Heads) -> None:
    for case in (packed_case([7, 4], shape), paged_case([(9, 3), (0, 5)], shape, 4)):
        width = shape.M if per == "kv head" else shape.N
        bias = torch.randn(len(case.k_SMH), width) * 2
        bias[case.k_SMH.isnan().all((1, 2))] = torch.nan  # of slots that nobody sees
        check(case.with_context(bias=bias))


def test_shared_prefix_comes_before_the_rows_of_its_sequences() -> None:
    """Two answers to one prompt, and a document that has nothing to do with them."""
    case = packed_case([4, 3, 5, 2], HEADS[1])
    segments = ((0, 4, 0), (4, 7, 4), (7, 12, 4), (12, 14, 0))
    positions = torch.tensor([*range(4), *range(4, 7), *range(4, 9), 0, 1])
    prompt = list(range(4))
    visible = [list(range(i + 1)) for i in range(4)]
    visible += [prompt + list(range(4, 4 + i + 1)) for i in range(3)]
    visible += [prompt + list(range(7, 7 + i + 1)) for i in range(5)]
    visible += [[12], [12, 13]]
    case = replace(case, visible=visible).with_context(
        segments=segments, positions_T=positions, shared_prefix=(-1, 0, 0, -1)
    )
    check(case)


@pytest.mark.parametrize("shape", HEADS)
def test_select_by_row_and_kv_head(shape: Heads) -> None:
    for case in (packed_case([9, 4], shape), paged_case([(9, 3), (0, 5)], shape, 4)):
        T, S = len(case.visible), len(case.k_SMH)
        select = torch.rand(T, shape.M, S) < 0.4
        for row, keys in enumerate(case.visible):  # every head reads something
            select[row, :, keys[row % len(keys)]] = True
        check(case.with_context(select=select))


def test_keys_that_no_head_may_read_can_hold_nan() -> None:
    """A seen key that ``select`` excludes for one head only must not reach that head."""
    case = packed_case([5], Heads(2, 2, 4, 4))
    select = torch.ones(5, 2, 5, dtype=torch.bool)
    select[3:, 0, 1] = False  # rows 3 and 4 do not read key 1 in head 0
    case = case.with_context(select=select)
    clean = attend_reference(*case.inputs).out_TNW
    case.k_SMH[1, 0] = torch.nan
    case.v_SMW[1, 0] = torch.nan
    harmed = attend_reference(*case.inputs).out_TNW
    assert torch.equal(harmed[3:], clean[3:])
    assert harmed[1:3, 0].isnan().all()


def test_all_fields_at_once() -> None:
    shape = HEADS[1]
    case = paged_case([(7, 4), (2, 3)], shape, 3, parents=[[-1, 0, 0, 2], [-1, -1, 1]])
    select = torch.rand(7, shape.M, len(case.k_SMH)) < 0.5
    for row, keys in enumerate(case.visible):
        select[row, :, keys[-1]] = True
    check(case.with_context(select=select, bias=torch.randn(len(case.k_SMH), shape.N)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 100), page_sizes, page_sizes)
def test_page_size_and_placement_do_not_matter(placement: int, size: int, other: int) -> None:
    """The reference reads entries in logical order, so the bits are the same."""
    sequences, shape = [(11, 2), (0, 6), (5, 1)], HEADS[1]
    base = attend_reference(*paged_case(sequences, shape, size).inputs)
    moved = attend_reference(*paged_case(sequences, shape, other, placement).inputs)
    assert torch.equal(base.out_TNW, moved.out_TNW)


def test_statistics_are_absent_unless_requested() -> None:
    result = attend_reference(*packed_case([3], HEADS[0]).inputs)
    assert (result.max_logit_N, result.lse_TN, result.scores) == (None, None, None)


def test_visible_keys_are_in_logical_order() -> None:
    case = paged_case([(9, 3), (0, 4)], HEADS[0], 4, placement=3)
    for row, keys in enumerate(case.visible):
        assert visible_keys(case.context, row).tolist() == keys


def test_half_precision_is_computed_in_float32() -> None:
    """bf16 inputs give the float32 result of the same inputs, rounded once."""
    case = packed_case([9], HEADS[1])
    low = replace(case, **{n: getattr(case, n).bfloat16() for n in ("q_TNH", "k_SMH", "v_SMW")})
    wide = replace(low, **{n: getattr(low, n).float() for n in ("q_TNH", "k_SMH", "v_SMW")})
    out = attend_reference(*low.inputs).out_TNW
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, attend_reference(*wide.inputs).out_TNW.bfloat16())


def optional_fields(case: Case) -> dict[str, Any]:
    T, S = len(case.visible), len(case.k_SMH)
    return {
        "bias": torch.zeros(S, case.k_SMH.shape[1]),
        "parent_T": torch.arange(-1, T - 1),
        "shared_prefix": (-1,),
        "select": torch.ones(T, case.k_SMH.shape[1], S, dtype=torch.bool),
        "stats": StatsRequest(score_rows=(0,)),
    }


@pytest.mark.parametrize("field", ["bias", "parent_T", "select", "stats"])
def test_fallback_is_logged_once_with_its_reason(
    field: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each optional field, set to what changes nothing, sends ``attend`` to the reference."""
    monkeypatch.setattr(log, "_said", set())  # what an earlier test made it say
    case = packed_case([5], HEADS[1])
    plain = attend(*case.inputs)
    assert not caplog.records
    other = case.with_context(**{field: optional_fields(case)[field]})
    for _ in range(2):
        assert_close(attend(*other.inputs).out_TNW, plain.out_TNW, **TOLERANCE)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert ("score_rows" if field == "stats" else field) in messages[0]
    assert "causal" in messages[0]


@pytest.mark.parametrize("length", [1, 2, 40])
def test_bound_is_within_the_log_of_the_number_of_keys(length: int) -> None:
    case = packed_case([length], Heads(3, 3, 8, 8))

    def statistic(kind: Any) -> torch.Tensor:
        found = attend_reference(*case.with_context(stats=StatsRequest(kind)).inputs).max_logit_N
        assert found is not None
        return found

    gap = statistic("bound") - statistic("exact")
    assert (gap >= 0).all()
    assert (gap <= math.log(length) + 1e-6).all()  # float32 rounding of the log-sum-exp
