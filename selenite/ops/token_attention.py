"""Attention of decoding rows that choose tokens: TidalDecode (arXiv 2410.05076, section 3).

    choosing   a row reads everything; the tokens with the most attention are kept for the step
    reading    a row reads what was kept, in the layers that follow

Our kernel reads chosen tokens where they lie: they are pages of one slot. A row is a sequence of
its own, so that nothing depends on the other rows of a step.

Letters: as in ``attention_context.py``; every sequence has one row, so that ``T`` counts both.
``C`` sets of tokens of a row (query heads, key/value heads, or one), ``K`` tokens of a set,
``L`` tokens of the longest sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    Pages,
    TokenSelection,
    TokenStep,
)
from selenite.ops.block_routing import largest
from selenite.ops.paged_attention import read_pages, serves

SUPPORTS = frozenset({"slot_biases"})

_BLOCK = 64  # keys; the kernel writes logits by blocks


@dataclass(frozen=True)
class _Chosen:
    """What rows read in the layers that follow."""

    slots_TCK: Tensor
    segments_T3: Tensor
    """Of the rows as sequences whose pages are these slots: a row may have fewer than ``K``."""


def attend_tokens(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    step: TokenStep,
    layer: int = 0,
) -> Attended:
    """``attend_reference`` where all sequences do ``step``; without statistics."""
    assert context.stats.max_logit is None, "statistics are asked for in training"
    key = ("tokens", step.selection)
    operands = q_TNH, k_SMH, v_SMW, context, scale, context.key_bias(layer)
    has_kernel = serves(q_TNH, k_SMH, v_SMW, context)
    if step.chooses:
        read_all = _read_all if has_kernel else _read_all_plainly
        out_TNW, lse_TN, context.derived[key] = read_all(*operands, step.selection)
    else:
        read_chosen = _read_chosen if has_kernel else _read_chosen_plainly
        out_TNW, lse_TN = read_chosen(*operands, context.derived[key])
    return Attended(out_TNW, None, lse_TN if context.stats.lse else None)


def choose_tokens(mass_TNL: Tensor, place_T: Tensor, selection: TokenSelection, M: int) -> Tensor:
    """Places of the keys that rows keep, ascending; int64 ``[T, C, K]``. Of equal ones the first.

    Args:
        mass_TNL: attention of each key; may be changed. Behind the row's own: anything.
        place_T: of the rows' own keys, each row seeing more than the budget.
        selection: how they choose.
        M: key/value heads.
    """
    (N, L), device = mass_TNL.shape[1:], mass_TNL.device
    C = _sets(selection, N, M)
    mass_TCL = mass_TNL.unflatten(1, (C, N // C)).sum(2)
    place_L, own_T1 = torch.arange(L, device=device), place_T[:, None]
    is_kept_TL = place_L < selection.num_sinks
    is_kept_TL = is_kept_TL | (place_L > own_T1 - selection.num_recent)
    mass_TCL.masked_fill_(is_kept_TL[:, None], torch.inf)
    mass_TCL.masked_fill_((place_L > own_T1)[:, None], -torch.inf)
    return largest(mass_TCL, selection.budget)[1].sort(-1).values


def _sets(selection: TokenSelection, N: int, M: int) -> int:
    return {"head": N, "group": M, "layer": 1}[selection.share]


def _limits(context: AttentionContext, selection: TokenSelection) -> Tensor:
    """Of each row: tokens that it reads, sinks and recent ones of these; int64 ``[T, 3]``."""
    if context.token_limits_T3 is not None:
        return context.token_limits_T3
    key = ("token limits", selection)
    if key not in context.derived:
        limits = selection.budget, selection.num_sinks, selection.num_recent
        context.derived[key] = torch.tensor([limits] * len(context.segments))
    return context.derived[key]


def _read_all(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
    selection: TokenSelection,
) -> tuple[Tensor, Tensor, _Chosen]:
    """Output and log-sum-exps of rows that read everything, and what they choose."""
    pages, limits_T3 = context.pages, _limits(context, selection)
    assert pages is not None
    (T, N, _), M = q_TNH.shape, k_SMH.shape[1]
    C, P = _sets(selection, N, M), pages.table_BP.shape[1]
    longest, K = max(pages.lengths), selection.budget
    if context.token_limits_T3 is not None:
        longest = K = P * pages.size
    logit_TNL = torch.empty(T, N, -(-longest // _BLOCK) * _BLOCK)
    where = pages.size, pages.table_BP, context.segments_B3
    scores = tuple(range(T)), logit_TNL
    out_TNW, softmax_2TN = read_pages(
        q_TNH, k_SMH, v_SMW, where, scale, bias=bias_SN, scores=scores
    )
    chosen = _Chosen(torch.empty(T, C, K, dtype=torch.int64), torch.empty(T, 3, dtype=torch.int64))
    numbers = T, N, C, logit_TNL.shape[2], P, pages.size, K
    native.call(
        "choose_tokens",
        *(logit_TNL, softmax_2TN, pages.table_BP, context.segments_B3, limits_T3),
        *(native.integers(numbers), chosen.slots_TCK, chosen.segments_T3),
    )
    return out_TNW, softmax_2TN[0], chosen


def _read_all_plainly(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
    selection: TokenSelection,
) -> tuple[Tensor, Tensor, _Chosen]:
    pages = context.pages
    assert pages is not None
    (T, N, _), M = q_TNH.shape, k_SMH.shape[1]
    out_TNW = q_TNH.new_empty(T, N, v_SMW.shape[2])
    mass_TNL = q_TNH.new_zeros((T, N, max(pages.lengths)), dtype=torch.float32)
    lse_TN = torch.empty(T, N, device=q_TNH.device)
    for row in range(T):
        slots_K = pages.slots(row)
        logit_NK = _logits(q_TNH[row], k_SMH[slots_K], scale, bias_SN, slots_K)
        lse_TN[row] = logit_NK.logsumexp(-1)
        mass_TNL[row, :, : len(slots_K)] = (logit_NK - lse_TN[row, :, None]).exp()
        out_TNW[row] = _values(logit_NK, v_SMW[slots_K]).to(q_TNH.dtype)
    # A row's own key comes after those before its step; a row is a sequence.
    place_T = context.segments_B3[:, 2].to(q_TNH.device)
    place_TCK = choose_tokens(mass_TNL, place_T, selection, M)
    segments_T3 = context.segments_B3.clone()
    segments_T3[:, 2] = selection.budget - 1
    return out_TNW, lse_TN, _Chosen(_slots(pages, place_TCK), segments_T3)


def _slots(pages: Pages, place_TCK: Tensor) -> Tensor:
    table_TCP = pages.table_BP[:, None].expand(-1, place_TCK.shape[1], -1)
    page_TCK = table_TCP.gather(2, place_TCK // pages.size)
    return page_TCK * pages.size + place_TCK % pages.size


def _read_chosen(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
    chosen: _Chosen,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exps of rows that read these slots."""
    C = chosen.slots_TCK.shape[1]
    outs, lses = list[Tensor](), list[Tensor]()
    for c in range(C):
        heads, kv_heads = _heads(q_TNH, k_SMH, c, C)
        out_TnW, softmax_2Tn = read_pages(
            *(q_TNH[:, heads], k_SMH[:, kv_heads], v_SMW[:, kv_heads]),
            (1, chosen.slots_TCK[:, c], chosen.segments_T3),
            scale,
            bias=None if bias_SN is None else bias_SN[:, heads],
        )
        outs.append(out_TnW)
        lses.append(softmax_2Tn[0])
    return (outs[0], lses[0]) if C == 1 else (torch.cat(outs, 1), torch.cat(lses, 1))


def _read_chosen_plainly(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
    chosen: _Chosen,
) -> tuple[Tensor, Tensor]:
    (T, N, _), C = q_TNH.shape, chosen.slots_TCK.shape[1]
    out_TNW = q_TNH.new_empty(T, N, v_SMW.shape[2])
    lse_TN = torch.empty(T, N, device=q_TNH.device)
    for c in range(C):
        heads, kv_heads = _heads(q_TNH, k_SMH, c, C)
        bias_Sn = None if bias_SN is None else bias_SN[:, heads]
        for row in range(T):
            slots_K = chosen.slots_TCK[row, c]
            keys = k_SMH[:, kv_heads][slots_K]
            logit_nK = _logits(q_TNH[row, heads], keys, scale, bias_Sn, slots_K)
            values = _values(logit_nK, v_SMW[:, kv_heads][slots_K])
            out_TNW[row, heads] = values.to(q_TNH.dtype)
            lse_TN[row, heads] = logit_nK.logsumexp(-1)
    return out_TNW, lse_TN


def _heads(q_TNH: Tensor, k_SMH: Tensor, c: int, C: int) -> tuple[slice, slice]:
    """Query heads of a set, and key/value heads that they read."""
    N, M = q_TNH.shape[1], k_SMH.shape[1]
    first = c * M // C
    return slice(c * N // C, (c + 1) * N // C), slice(first, max(first + 1, (c + 1) * M // C))


def _logits(
    q_NH: Tensor, k_KMH: Tensor, scale: float, bias_SN: Tensor | None, slots_K: Tensor
) -> Tensor:
    """Float32 ``[N, K]``."""
    q_MGH = q_NH.float().unflatten(0, (k_KMH.shape[1], -1))
    logit_NK = (q_MGH @ k_KMH.float().permute(1, 2, 0)).flatten(0, 1) * scale
    return logit_NK if bias_SN is None else logit_NK + bias_SN[slots_K].T


def _values(logit_NK: Tensor, v_KMW: Tensor) -> Tensor:
    """Float32 ``[N, W]``."""
    weight_MGK = logit_NK.softmax(-1).unflatten(0, (v_KMW.shape[1], -1))
    return (weight_MGK @ v_KMW.float().transpose(0, 1)).flatten(0, 1)
