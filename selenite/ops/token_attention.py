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

import torch
from torch import Tensor

from selenite.ops.attention_context import Attended, AttentionContext, TokenSelection, TokenStep
from selenite.ops.block_routing import largest
from selenite.ops.paged_attention import read_pages, serves

SUPPORTS = frozenset({"slot_biases"})

_BLOCK = 64  # keys; the kernel writes logits by blocks


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
    bias_SN = context.key_bias(layer)
    if step.chooses:
        out_TNW, lse_TN, mass_TNL = _read_all(q_TNH, k_SMH, v_SMW, context, scale, bias_SN)
        context.derived[key] = _chosen_slots(mass_TNL, context, step.selection, k_SMH.shape[1])
    else:
        slots_TCK = context.derived[key]
        out_TNW, lse_TN = _read_chosen(q_TNH, k_SMH, v_SMW, slots_TCK, context, scale, bias_SN)
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
    C = {"head": N, "group": M, "layer": 1}[selection.share]
    mass_TCL = mass_TNL.unflatten(1, (C, N // C)).sum(2)
    place_L, own_T1 = torch.arange(L, device=device), place_T[:, None]
    is_kept_TL = place_L < selection.num_sinks
    is_kept_TL = is_kept_TL | (place_L > own_T1 - selection.num_recent)
    mass_TCL.masked_fill_(is_kept_TL[:, None], torch.inf)
    mass_TCL.masked_fill_((place_L > own_T1)[:, None], -torch.inf)
    return largest(mass_TCL, selection.budget)[1].sort(-1).values


def _chosen_slots(
    mass_TNL: Tensor, context: AttentionContext, selection: TokenSelection, M: int
) -> Tensor:
    pages = context.pages
    assert pages is not None
    # A row's own key comes after those before its step; a row is a sequence.
    place_T = context.segments_B3[:, 2].to(mass_TNL.device)
    place_TCK = choose_tokens(mass_TNL, place_T, selection, M)
    table_TCP = pages.table_BP[:, None].expand(-1, place_TCK.shape[1], -1)
    page_TCK = table_TCP.gather(2, place_TCK // pages.size)
    return page_TCK * pages.size + place_TCK % pages.size


def _read_all(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output and log-sum-exps of rows that read everything, and what they attend to."""
    pages = context.pages
    assert pages is not None
    T, N, _ = q_TNH.shape
    longest = max(pages.lengths)
    logit_TNL = q_TNH.new_full(
        (T, N, -(-longest // _BLOCK) * _BLOCK), -torch.inf, dtype=torch.float32
    )
    if serves(q_TNH, k_SMH, v_SMW, context):
        where = pages.size, pages.table_BP, context.segments_B3
        scores = tuple(range(T)), logit_TNL
        out_TNW, softmax_2TN = read_pages(
            q_TNH, k_SMH, v_SMW, where, scale, bias=bias_SN, scores=scores
        )
        lse_TN = softmax_2TN[0]
    else:
        out_TNW = q_TNH.new_empty(T, N, v_SMW.shape[2])
        for row in range(T):
            slots_K = pages.slots(row)
            logit_NK = _logits(q_TNH[row], k_SMH[slots_K], scale)
            if bias_SN is not None:
                logit_NK = logit_NK + bias_SN[slots_K].T
            logit_TNL[row, :, : len(slots_K)] = logit_NK
            out_TNW[row] = _values(logit_NK, v_SMW[slots_K]).to(q_TNH.dtype)
        lse_TN = logit_TNL.logsumexp(-1)
    return out_TNW, lse_TN, logit_TNL.sub_(lse_TN[..., None]).exp_()


def _read_chosen(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    slots_TCK: Tensor,
    context: AttentionContext,
    scale: float,
    bias_SN: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exps of rows that read these slots."""
    (T, N, _), M = q_TNH.shape, k_SMH.shape[1]
    C, K = slots_TCK.shape[1:]
    out_TNW = q_TNH.new_empty(T, N, v_SMW.shape[2])
    lse_TN = torch.empty(T, N, device=q_TNH.device)
    has_kernel = serves(q_TNH, k_SMH, v_SMW, context)
    row_T = torch.arange(T)
    segments_T3 = torch.stack((row_T, row_T + 1, torch.full_like(row_T, K - 1)), 1)
    for c in range(C):
        heads = slice(c * N // C, (c + 1) * N // C)
        kv_heads = slice(c * M // C, max(c * M // C + 1, (c + 1) * M // C))
        operands = q_TNH[:, heads], k_SMH[:, kv_heads], v_SMW[:, kv_heads]
        slots_TK = slots_TCK[:, c]
        bias = None if bias_SN is None else bias_SN[:, heads]
        if has_kernel:
            out, softmax = read_pages(*operands, (1, slots_TK, segments_T3), scale, bias=bias)
            out_TNW[:, heads], lse_TN[:, heads] = out, softmax[0]
            continue
        for row in range(T):
            q_NH, k_KMH, v_KMW = (
                operands[0][row],
                operands[1][slots_TK[row]],
                operands[2][slots_TK[row]],
            )
            logit_NK = _logits(q_NH, k_KMH, scale)
            if bias is not None:
                logit_NK = logit_NK + bias[slots_TK[row]].T
            out_TNW[row, heads] = _values(logit_NK, v_KMW).to(q_TNH.dtype)
            lse_TN[row, heads] = logit_NK.logsumexp(-1)
    return out_TNW, lse_TN


def _logits(q_NH: Tensor, k_KMH: Tensor, scale: float) -> Tensor:
    """Float32 ``[N, K]``."""
    q_MGH = q_NH.float().unflatten(0, (k_KMH.shape[1], -1))
    return (q_MGH @ k_KMH.float().permute(1, 2, 0)).flatten(0, 1) * scale


def _values(logit_NK: Tensor, v_KMW: Tensor) -> Tensor:
    """Float32 ``[N, W]``."""
    weight_MGK = logit_NK.softmax(-1).unflatten(0, (v_KMW.shape[1], -1))
    return (weight_MGK @ v_KMW.float().transpose(0, 1)).flatten(0, 1)
