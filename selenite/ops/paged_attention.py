"""Attention over cached entries by a kernel of our own, which reads them where they lie.

``csrc/paged_attention.cpp`` follows the page table: no key is gathered, copied or cast. It obeys
every field of a context with pages, in bfloat16 and float32 on the CPU. Without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    reduce_max,
    visible_rows,
)

SUPPORTS = frozenset({"bias", "parent_T", "select", "score_rows", "sees_step", "slot_biases"})

_KERNELS = {torch.bfloat16: "paged_attention_bf16", torch.float32: "paged_attention_float"}
_BLOCK = 64  # keys; scores are written by blocks


def serves(q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext) -> bool:
    """Whether the kernel computes these."""
    return (
        context.pages is not None
        and q_TNH.dtype == k_SMH.dtype == v_SMW.dtype
        and not (q_TNH.requires_grad and torch.is_grad_enabled())
        and native.serves(q_TNH, tuple(_KERNELS))
    )


def attend_paged(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int = 0,
) -> Attended:
    """``attend_reference`` for what ``serves``."""
    pages, stats = context.pages, context.stats
    assert pages is not None
    positions = {row: _seen_positions(context, row) for row in stats.score_rows}
    score_CNL = _unseen(positions, q_TNH.shape[1]) if positions else None
    out_TNW, softmax_2TN = read_pages(
        q_TNH,
        k_SMH,
        v_SMW,
        (pages.size, pages.table_BP, context.segments_B3),
        scale,
        context.sees_step,
        bias=context.key_bias(layer),
        parent_T=context.parent_T,
        select=context.select,
        scores=(tuple(positions), score_CNL),
    )
    scores = None
    if score_CNL is not None:
        scores = {row: score_CNL[i][:, seen] for i, (row, seen) in enumerate(positions.items())}
    if stats.max_logit is None and not stats.lse:
        return Attended(out_TNW, scores=scores)
    lse_TN, max_TN = softmax_2TN
    return Attended(
        out_TNW=out_TNW,
        max_logit_N=reduce_max(stats, max_TN, lse_TN),
        lse_TN=lse_TN if stats.lse else None,
        scores=scores,
    )


def read_pages(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    where: tuple[int, Tensor, Tensor],
    scale: float,
    sees_step: bool = True,
    *,
    bias: Tensor | None = None,
    parent_T: Tensor | None = None,
    select: Tensor | None = None,
    scores: tuple[tuple[int, ...], Tensor | None] = ((), None),
) -> tuple[Tensor, Tensor]:
    """Output, and log-sum-exps and largest logits ``[2, T, N]``, by the kernel.

    Args:
        q_TNH: as in ``attend``, as are the keys and values.
        k_SMH: by slot.
        v_SMW: by slot.
        where: slots of a page, pages of each sequence, and its segments ``[B, 3]``.
        scale: multiplies the logits.
        sees_step: as in the context, as are the rest.
        bias: by slot.
        parent_T: rows of the step.
        select: by row and slot.
        scores: the rows whose logits are written, and where to, by position.
    """
    assert scale > 0, scale
    (T, N, H), (M, W) = q_TNH.shape, v_SMW.shape[1:]
    page_size, table_BP, segments_B3 = where
    score_rows, score_CNL = scores
    q_TNH, k_SMH, v_SMW = (x if x.stride(2) == 1 else x.contiguous() for x in (q_TNH, k_SMH, v_SMW))
    if bias is not None:
        bias = bias.float().contiguous()
    if select is not None and select.stride(2) != 1:
        select = select.contiguous()
    out_TNW = q_TNH.new_empty(T, N, W)
    softmax_2TN = torch.empty(2, T, N, device=q_TNH.device)
    numbers = [T, N, M, H, W, page_size, table_BP.stride(0), len(segments_B3)]
    numbers += [0 if bias is None else bias.shape[1], len(score_rows)]
    numbers += [0 if score_CNL is None else score_CNL.shape[2], int(sees_step)]
    for x in (q_TNH, k_SMH, v_SMW, select):
        numbers += (0, 0) if x is None else x.stride()[:2]
    native.call(
        _KERNELS[q_TNH.dtype],
        *(q_TNH, k_SMH, v_SMW, table_BP, segments_B3, native.integers(numbers)),
        *(scale, bias, parent_T, select, native.integers(score_rows), score_CNL),
        *(out_TNW, softmax_2TN),
    )
    return out_TNW, softmax_2TN


def _seen_positions(context: AttentionContext, row: int) -> Tensor:
    """Positions of the keys that a row sees, in logical order."""
    start, _, first = context.segments[int(context.sequence_T[row])]
    if not context.sees_step:
        return torch.arange(first)
    return torch.cat((torch.arange(first), visible_rows(context, row) - start + first))


def _unseen(positions: dict[int, Tensor], N: int) -> Tensor:
    """Scores of rows by position before any key was seen, with room for whole blocks."""
    longest = max((int(seen.max()) + 1 for seen in positions.values()), default=0)
    return torch.full((len(positions), N, -(-longest // _BLOCK) * _BLOCK), -torch.inf)
