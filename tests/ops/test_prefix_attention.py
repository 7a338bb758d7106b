"""Continuations of a shared prefix equal whole documents that begin with it, in value and gradient:
the oracle is the reference on each of them laid out by itself.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from selenite.ops import prefix_attention
from selenite.ops.attention import attend_reference, choose_attention
from selenite.ops.attention_context import StatsRequest, packed_context
from selenite.ops.prefix_attention import attend_after_prefix
from tests.fixtures.dense_attention import Heads
from tests.fixtures.trees import Tree, context_of

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
GRADIENT = {"atol": 1e-4, "rtol": 1e-4}
SHAPES = [Heads(4, 2, 8, 8), Heads(6, 1, 24, 16), Heads(2, 2, 8, 12), Heads(3, 3, 5, 3)]
trees = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 9), st.sampled_from([63, 64, 65])),
        st.lists(st.one_of(st.integers(1, 9), st.sampled_from([64, 70])), max_size=3),
    ),
    min_size=1,
    max_size=3,
)


def random_rows(T: int, shape: Heads, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((shape.N, shape.H), (shape.M, shape.H), (shape.M, shape.W))
    return tuple(torch.randn(T, *size, generator=generator) for size in sizes)


@settings(max_examples=25, deadline=None)
@given(trees, st.sampled_from(SHAPES), st.sampled_from(["exact", "bound"]), st.integers(0, 99))
def test_equals_the_reference(known: list[Tree], shape: Heads, kind: str, seed: int) -> None:
    context = context_of(known, StatsRequest(max_logit=kind, lse=True))  # type: ignore[arg-type]
    q, k, v = random_rows(len(context.positions_T), shape, seed)
    assert choose_attention(q, k, v, context).value == "prefix"
    found = attend_after_prefix(q, k, v, context, 0.3)
    expected = attend_reference(q, k, v, context, 0.3)
    assert_close(found.out_TNW, expected.out_TNW, **CLOSE)
    assert_close(found.lse_TN, expected.lse_TN, **CLOSE)
    assert_close(found.max_logit_N, expected.max_logit_N, **CLOSE)


def continued(x: torch.Tensor, known: list[Tree]) -> torch.Tensor:
    """The rows of whole documents, each with a copy of its beginning."""
    rows, row = list[torch.Tensor](), 0
    for beginning, continuations in known:
        before = x[row : row + beginning]
        row += beginning
        for length in continuations:
            rows += [before, x[row : row + length]]
            row += length
    return torch.cat(rows)


@pytest.mark.parametrize("path", ["flash", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_whole_documents(
    shape: Heads, dtype: torch.dtype, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``plain`` is what runs on other devices, run here. In bfloat16 outputs and gradients are
    rounded to 8 bits, and those of the beginnings are sums of three such."""
    if path == "plain":
        monkeypatch.setattr(prefix_attention, "_has_flash", lambda q: False)
    known = [(70, [5, 64, 30]), (3, [9, 1])]
    context = context_of(known, StatsRequest())
    rows = [x.to(dtype) for x in random_rows(len(context.positions_T), shape, 1)]
    shared = [x.clone().requires_grad_() for x in rows]
    copied = [x.float().requires_grad_() for x in rows]
    out = attend_after_prefix(*shared, context, 0.3).out_TNW
    assert out.dtype == dtype
    whole = packed_context([b + c for b, many in known for c in many])
    expected = attend_reference(*(continued(x, known) for x in copied), whole, 0.3).out_TNW
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    (out * weights).sum().backward()
    (expected * counted(weights.float(), known)).sum().backward()
    close = GRADIENT if dtype == torch.float32 else {"atol": 0.06, "rtol": 0.03}
    for ours, theirs in zip(shared, copied, strict=True):
        assert ours.grad is not None
        assert_close(ours.grad.float(), theirs.grad, **close)


def counted(weights: torch.Tensor, known: list[Tree]) -> torch.Tensor:
    """Of the rows of whole documents: beginnings count once, in the first that has a copy."""
    found, row = list[torch.Tensor](), 0
    for beginning, continuations in known:
        before, *owns = weights[row : row + beginning + sum(continuations)].split(
            [beginning, *continuations]
        )
        row += beginning + sum(continuations)
        for place, own in enumerate(owns):
            found += [before * (place == 0), own]
    return torch.cat(found)


def test_without_the_cpus_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of([(70, [5, 64]), (9, [])], StatsRequest(lse=True))
    rows = random_rows(len(context.positions_T), SHAPES[0], 3)
    expected = attend_after_prefix(*rows, context, 0.3)
    monkeypatch.setattr(prefix_attention, "_has_flash", lambda q: False)
    found = attend_after_prefix(*rows, context, 0.3)
    assert_close(found.out_TNW, expected.out_TNW, **CLOSE)
    assert_close(found.lse_TN, expected.lse_TN, **CLOSE)
