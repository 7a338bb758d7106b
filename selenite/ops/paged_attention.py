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

SUPPORTS = frozenset({"bias", "parent_T", "select", "score_rows"})

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
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for what ``serves``."""
    pages, stats = context.pages, context.stats
    assert pages is not None
    T, N, H = q_TNH.shape
    M, W = v_SMW.shape[1:]
    q_TNH, k_SMH, v_SMW = (x if x.stride(2) == 1 else x.contiguous() for x in (q_TNH, k_SMH, v_SMW))
    bias, select = context.bias, context.select
    if bias is not None:
        bias = bias.contiguous()
    if select is not None and select.stride(2) != 1:
        select = select.contiguous()
    out_TNW = q_TNH.new_empty(T, N, W)
    lse_TN, max_TN = q_TNH.new_empty(2, T, N, dtype=torch.float32)
    positions = {row: _seen_positions(context, row) for row in stats.score_rows}
    score_CNL = _unseen(positions, N)
    strides = [n for x in (q_TNH, k_SMH, v_SMW) for n in x.stride()[:2]]
    strides += select.stride()[:2] if select is not None else (0, 0)
    dims = [T, N, M, H, W, pages.size, pages.table_BP.shape[1], len(context.segments)]
    dims += [0 if bias is None else bias.shape[1], *score_CNL.shape[::2]]
    native.call(
        _KERNELS[q_TNH.dtype],
        *(q_TNH, k_SMH, v_SMW, native.integers(strides)),
        *(pages.table_BP, context.segments_B3, native.integers(dims), scale),
        *(bias, context.parent_T, select, native.integers(positions), score_CNL),
        *(out_TNW, lse_TN, max_TN),
    )
    scores = {row: score_CNL[i][:, seen] for i, (row, seen) in enumerate(positions.items())}
    return Attended(
        out_TNW=out_TNW,
        max_logit_N=reduce_max(stats, max_TN, lse_TN),
        lse_TN=lse_TN if stats.lse else None,
        scores=scores if stats.score_rows else None,
    )


def _seen_positions(context: AttentionContext, row: int) -> Tensor:
    """Positions of the keys that a row sees, in logical order."""
    start, _, first = context.segments[int(context.sequence_T[row])]
    return torch.cat((torch.arange(first), visible_rows(context, row) - start + first))


def _unseen(positions: dict[int, Tensor], N: int) -> Tensor:
    """Scores of rows by position before any key was seen, with room for whole blocks."""
    longest = max((int(seen.max()) + 1 for seen in positions.values()), default=0)
    return torch.full((len(positions), N, -(-longest // _BLOCK) * _BLOCK), -torch.inf)
