"""Our bfloat16 attention kernel against the row-by-row reference in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.attention import attend_reference, choose_attention
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    StatsRequest,
    packed_context,
)
from selenite.ops.causal_kernel import attend_by_kernel, serves
from selenite.ops.prefix_attention import attend_after_prefix
from tests.fixtures.trees import context_of

pytestmark = pytest.mark.skipif(
    native.instruction_set().value != "avx512_bf16" or not native.is_available(),
    reason=f"no kernel: {native.availability().reason}; {native.instruction_set().value}",
)
# Of the largest value: probabilities, their gradients and the results keep 8 bits each.
TOLERANCE = 8e-3
# documents, query heads, key/value heads, key width, value width
SHAPES = [
    ([1], 1, 1, 2, 2),
    ([5, 70, 64, 1], 4, 2, 48, 32),
    ([130, 3], 6, 3, 64, 64),
    ([200], 2, 1, 192, 128),
    ([65, 63], 2, 2, 6, 10),
]
EVERYTHING = StatsRequest(max_logit="exact", lse=True)


def operands(lengths: list[int], N: int, M: int, H: int, W: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths) + N)
    T = sum(lengths)
    shapes = [(T, N, H), (T, M, H), (T, M, W), (T, N, W)]
    return [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


def results(
    attend: Callable[[Tensor, Tensor, Tensor, AttentionContext, float], Attended],
    tensors: list[Tensor],
    context: AttentionContext,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    q, k, v = (x.detach().to(dtype).requires_grad_() for x in tensors[:3])
    attended = attend(q, k, v, context, 1.5 * q.shape[2] ** -0.5)
    attended.out_TNW.backward(tensors[3].to(dtype))
    found = {
        "out": attended.out_TNW,
        "lse": attended.lse_TN,
        "max_logit": attended.max_logit_N,
        "dq": q.grad,
        "dk": k.grad,
        "dv": v.grad,
    }
    return {name: x.detach().float() for name, x in found.items() if x is not None}


@pytest.mark.parametrize("shape", SHAPES)
def test_results_and_gradients_equal_the_references(shape: tuple[list[int], int, int, int, int]):
    context = packed_context(shape[0], EVERYTHING)
    tensors = operands(*shape)
    assert serves(tensors[0], tensors[2])
    ours = results(attend_by_kernel, tensors, context, torch.bfloat16)
    exact = results(attend_reference, tensors, context, torch.float32)
    assert ours.keys() == exact.keys() == {"out", "lse", "max_logit", "dq", "dk", "dv"}
    for name, x in ours.items():
        tolerance = 1e-5 if name in ("lse", "max_logit") else TOLERANCE
        largest = float(exact[name].abs().max())
        torch.testing.assert_close(x, exact[name], rtol=0, atol=tolerance * largest + 1e-6)


def test_views_with_strides_give_the_same_bits():
    tensors = operands([70, 9], 4, 2, 48, 32)
    context = packed_context([70, 9], EVERYTHING)
    T = 79
    joined = torch.cat((tensors[1], tensors[2]), -1)  # as latent attention expands them
    k, v = joined.split((48, 32), -1)
    wide = torch.zeros(T, 4, 100, dtype=torch.bfloat16)
    wide[..., 3:51] = tensors[0]
    views = [wide[..., 3:51], k, v]
    assert all(not x.is_contiguous() for x in views)
    attended = attend_by_kernel(*views, context, 0.1)
    expected = attend_by_kernel(*tensors[:3], context, 0.1)
    assert torch.equal(attended.out_TNW, expected.out_TNW)
    assert torch.equal(attended.lse_TN, expected.lse_TN)


def test_bits_depend_neither_on_threads_nor_on_other_documents():
    lengths = [100, 64, 1, 30]
    tensors = operands(lengths, 4, 2, 48, 32)
    context = packed_context(lengths, EVERYTHING)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(attend_by_kernel, tensors, context, torch.bfloat16)
        torch.set_num_threads(2)
        two = results(attend_by_kernel, tensors, context, torch.bfloat16)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, two[name]) for name, x in one.items())
    alone = results(
        attend_by_kernel,
        [x[100:164] for x in tensors],
        packed_context([64], EVERYTHING),
        torch.bfloat16,
    )
    for name in ("out", "lse", "dq", "dk", "dv"):
        assert torch.equal(alone[name], one[name][100:164]), name


def test_later_rows_and_other_documents_cannot_matter():
    tensors = operands([70, 20], 2, 2, 16, 16)
    context = packed_context([70, 20], EVERYTHING)
    clean = attend_by_kernel(*tensors[:3], context, 0.25)
    changed = [x.clone() for x in tensors[:3]]
    for x in changed:
        x[40:70] = 1e30
        x[70:] = torch.nan
    dirty = attend_by_kernel(*changed, context, 0.25)
    assert torch.equal(dirty.out_TNW[:40], clean.out_TNW[:40])
    assert dirty.out_TNW[70:].isnan().all()
    assert dirty.max_logit_N is not None
    assert dirty.max_logit_N.isnan().all()


@pytest.mark.parametrize("size", [1e4, 1e-4])
def test_large_and_tiny_logits(size: float):
    """Rows far from 0: nothing overflows, and the largest logit stays exact."""
    tensors = operands([90], 2, 1, 32, 32)
    tensors[0] = (tensors[0].float() * size).bfloat16()
    context = packed_context([90], EVERYTHING)
    ours = results(attend_by_kernel, tensors, context, torch.bfloat16)
    exact = results(attend_reference, tensors, context, torch.float32)
    torch.testing.assert_close(ours["max_logit"], exact["max_logit"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours["lse"], exact["lse"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["out"], exact["out"], rtol=0, atol=3e-2)
    assert all(x.isfinite().all() for x in ours.values())


def test_a_plan_without_storage_allocates_what_a_step_does():
    tensors = [x.to("meta").requires_grad_() for x in operands([70], 4, 2, 48, 32)[:3]]
    attended = attend_by_kernel(*tensors, packed_context([70], EVERYTHING), 0.1)
    assert attended.out_TNW.shape == (70, 4, 32)
    attended.out_TNW.sum().backward()
    assert [x.grad.shape for x in tensors if x.grad is not None] == [x.shape for x in tensors]


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize(
    "trees", [[(70, [64, 1, 130])], [(1, [5]), (64, []), (129, [3, 70])], [(7, [2] * 9)]]
)
def test_what_goes_on_from_a_document_sees_it(
    trees: list[tuple[int, list[int]]], shape: tuple[list[int], int, int, int, int]
) -> None:
    context = context_of(trees, EVERYTHING)
    lengths = [length for first, others in trees for length in (first, *others)]
    tensors = operands(lengths, *shape[1:])
    assert choose_attention(*tensors[:3], context).value == "prefix"
    ours = results(attend_after_prefix, tensors, context, torch.bfloat16)
    exact = results(attend_reference, tensors, context, torch.float32)
    for name, x in ours.items():
        tolerance = 1e-5 if name in ("lse", "max_logit") else TOLERANCE
        largest = float(exact[name].abs().max())
        torch.testing.assert_close(x, exact[name], rtol=0, atol=tolerance * largest + 1e-6)


def test_continuations_may_lie_anywhere_and_see_no_other():
    """Parts in another order have the same bits, and one's rows do not matter to the next."""
    context = context_of([(70, [9, 30]), (20, [])], EVERYTHING)
    tensors = operands([70, 9, 30, 20], 4, 2, 48, 32)
    expected = results(attend_by_kernel, tensors, context, torch.bfloat16)
    rows = [torch.arange(70, 79), torch.arange(109, 129), torch.arange(70), torch.arange(79, 109)]
    order_T = torch.cat(rows)
    moved = replace(
        context,
        positions_T=context.positions_T[order_T],
        sequence_T=torch.repeat_interleave(torch.tensor([9, 20, 70, 30])),
        segments=((0, 9, 70), (9, 29, 0), (29, 99, 0), (99, 129, 70)),
        shared_prefix=(2, -1, -1, 2),
    )
    found = results(attend_by_kernel, [x[order_T] for x in tensors], moved, torch.bfloat16)
    for name in ("out", "lse", "dq", "dk", "dv"):
        assert torch.equal(found[name], expected[name][order_T]), name
    changed = [x.clone() for x in tensors[:3]]
    for x in changed:
        x[79:109] = torch.nan
    again = attend_by_kernel(*changed, context, 1.5 * 48**-0.5)
    assert torch.equal(again.out_TNW[:79].float(), expected["out"][:79])
