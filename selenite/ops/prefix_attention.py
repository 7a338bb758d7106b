"""Causal attention of sequences that go on from a shared prefix: training on several continuations
of one beginning, whose rows are computed once.

    rows     P P P P P | a a a | b b b b | L L L      b sees P and b; L is a document of its own

Prefixes and documents of their own go to ``attend_causal``; a continuation is one dense product
over its prefix and itself, with a mask.

Letters: ``Q`` rows of a continuation, ``K`` its keys: those of the prefix, then its own.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops.attention_context import Attended, AttentionContext, StatsRequest
from selenite.ops.causal_attention import attend_causal, widened

SUPPORTS: frozenset[str] = frozenset({"shared_prefix"})

_LENGTH_MULTIPLE = 64  # of rows and keys: the CPU's kernel compiles code for every new length
_Segment = tuple[int, int, int]


def attend_after_prefix(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for a context without pages whose one optional field is
    ``shared_prefix``."""
    assert context.shared_prefix is not None
    segments, stats = context.segments, context.stats
    prefixes = [segments[of] if of >= 0 else None for of in context.shared_prefix]
    whole = [s for s, prefix in zip(segments, prefixes, strict=True) if prefix is None]
    begun = _attend_whole(q_TNH, k_TMH, v_TMW, context, whole, scale)
    assert begun.lse_TN is not None
    lengths = [stop - start for start, stop, _ in whole]
    done = iter(zip(begun.out_TNW.split(lengths), begun.lse_TN.split(lengths), strict=True))
    rows, maxima = [], [begun.max_logit_N]
    for (start, stop, _), prefix in zip(segments, prefixes, strict=True):
        if prefix is None:
            rows.append(next(done))
            continue
        own, before = slice(start, stop), slice(*prefix[:2])
        k_KMH, v_KMW = (torch.cat((x[before], x[own])) for x in (k_TMH, v_TMW))
        out, lse = _continue(q_TNH[own], k_KMH, v_KMW, scale)
        rows.append((out, lse))
        maxima.append(_statistic(stats, q_TNH[own].detach(), k_KMH.detach(), lse, scale))
    return Attended(
        torch.cat([out for out, _ in rows]),
        torch.stack([m for m in maxima if m is not None]).amax(0) if stats.max_logit else None,
        torch.cat([lse for _, lse in rows]) if stats.lse else None,
    )


def _attend_whole(
    q_TNH: Tensor,
    k_TMH: Tensor,
    v_TMW: Tensor,
    context: AttentionContext,
    whole: list[_Segment],
    scale: float,
) -> Attended:
    """Of the rows that have no prefix, laid together; with their log-sum-exp."""
    rows = torch.cat([torch.arange(start, stop) for start, stop, _ in whole]).to(q_TNH.device)
    ends = torch.tensor([stop - start for start, stop, _ in whole]).cumsum(0).tolist()
    together = replace(
        context,
        positions_T=context.positions_T[rows],
        sequence_T=context.sequence_T[rows],
        segments=tuple((a, b, 0) for a, b in zip([0, *ends], ends, strict=False)),
        shared_prefix=None,
        stats=replace(context.stats, lse=True),
    )
    return attend_causal(q_TNH[rows], k_TMH[rows], v_TMW[rows], together, scale)


def _continue(q_QNH: Tensor, k_KMH: Tensor, v_KMW: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output ``[Q, N, W]``, and log-sum-exp ``[Q, N]`` without gradient."""
    (Q, N, H), (K, M, W) = q_QNH.shape, v_KMW.shape
    by_flash = _has_flash(q_QNH)
    multiple, width = (_LENGTH_MULTIPLE, max(H, W)) if by_flash else (1, 0)
    q_NQH = _padded(q_QNH, multiple, width).transpose(0, 1)
    k_NKH, v_NKW = (
        _padded(x, multiple, width).repeat_interleave(N // M, 1).transpose(0, 1)
        for x in (k_KMH, v_KMW)
    )
    seen_QK = _seen(Q, K, q_NQH.shape[1], k_NKH.shape[1], q_QNH.device)
    if by_flash:
        mask_QK = torch.zeros(seen_QK.shape, dtype=q_QNH.dtype).masked_fill_(~seen_QK, -torch.inf)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(x[None] for x in (q_NQH, k_NKH, v_NKW)), attn_mask=mask_QK, scale=scale
        )
        out_NQW, lse_NQ = out[0], lse[0]
    else:
        logits_NQK = torch.matmul(q_NQH, k_NKH.transpose(1, 2)).float() * scale
        logits_NQK = logits_NQK.masked_fill(~seen_QK, -torch.inf)
        lse_NQ = logits_NQK.logsumexp(-1)
        out_NQW = torch.matmul((logits_NQK - lse_NQ[..., None]).exp().to(v_NKW.dtype), v_NKW)
    return out_NQW[:, :Q, :W].transpose(0, 1), lse_NQ[:, :Q].detach().transpose(0, 1)


def _has_flash(q_QNH: Tensor) -> bool:
    """Whether torch has a flash kernel for the device that takes a mask and returns sums."""
    return q_QNH.device.type == "cpu"


def _padded(x_TMH: Tensor, multiple: int, width: int) -> Tensor:
    """With zeros up to a multiple of rows, and up to a width."""
    x_TMH = widened(x_TMH, max(width, x_TMH.shape[2]))
    rest = -len(x_TMH) % multiple
    return F.pad(x_TMH, (0, 0, 0, 0, 0, rest)) if rest else x_TMH


@lru_cache(maxsize=64)
def _seen(num_rows: int, num_keys: int, Q: int, K: int, device: torch.device) -> Tensor:
    """Which keys each row sees, bool ``[Q, K]``: up to its own, the last row's being the last.
    Rows of padding see all keys, and nobody sees keys of padding."""
    last_Q = torch.arange(Q, device=device) + num_keys - num_rows
    key_K = torch.arange(K, device=device)
    return (key_K <= last_Q[:, None]) & (key_K < num_keys)


@torch.no_grad()
def _statistic(
    stats: StatsRequest, q_QNH: Tensor, k_KMH: Tensor, lse_QN: Tensor, scale: float
) -> Tensor | None:
    """The heads' largest logit, or its bound; float32 ``[N]``."""
    if stats.max_logit != "exact":
        return lse_QN.amax(0) if stats.max_logit == "bound" else None
    Q, K = len(q_QNH), len(k_KMH)
    k_NHK = k_KMH.float().repeat_interleave(q_QNH.shape[1] // k_KMH.shape[1], 1).permute(1, 2, 0)
    logits_NQK = torch.matmul(q_QNH.float().transpose(0, 1) * scale, k_NHK)
    seen_QK = _seen(Q, K, Q, K, q_QNH.device)
    return logits_NQK.masked_fill_(~seen_QK, -torch.inf).amax((1, 2))
