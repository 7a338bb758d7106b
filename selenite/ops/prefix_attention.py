"""Causal attention of sequences that go on from a shared prefix: training on several continuations
of one beginning, whose rows are computed once.

    rows     P P P P P | a a a | b b b b | L L L      b sees P and b; L is a document of its own

In bfloat16 on the CPU by our kernel of causal attention, where there is one. Else prefixes and
documents of their own go to ``attend_causal``, and a continuation is one dense product over its
prefix and itself, with a mask.

Letters: ``Q`` rows of a continuation, ``K`` its keys: those of the prefix, then its own.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops import causal_kernel
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    StatsRequest,
    packed_context,
)
from selenite.ops.causal_attention import attend_causal, widened

SUPPORTS: frozenset[str] = frozenset({"shared_prefix"})

_LENGTH_MULTIPLE = 64  # of rows and keys: the CPU's kernel compiles code for every new length
_QUERY_BLOCK = 128  # rows whose logits are held at once by the exact maximum


def attend_after_prefix(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for a context without pages whose one optional field is
    ``shared_prefix``."""
    assert context.shared_prefix is not None
    if causal_kernel.serves(q_TNH, v_TMW):
        return causal_kernel.attend_by_kernel(q_TNH, k_TMH, v_TMW, context, scale)
    segments, prefixes, stats = context.segments, context.shared_prefix, context.stats
    # Split and joined, not indexed: the gradient is one copy, not a scatter for each segment.
    lengths = [stop - start for start, stop, _ in segments]
    qs, ks, vs = (x.split(lengths) for x in (q_TNH, k_TMH, v_TMW))
    whole = [i for i, prefix in enumerate(prefixes) if prefix < 0]
    own = packed_context([lengths[i] for i in whole], replace(stats, lse=True))
    q, k, v = (torch.cat([parts[i] for i in whole]) for parts in (qs, ks, vs))
    begun = attend_causal(q, k, v, own, scale)
    assert begun.lse_TN is not None
    outs, lses = (x.split([lengths[i] for i in whole]) for x in (begun.out_TNW, begun.lse_TN))
    done = iter(zip(outs, lses, strict=True))
    rows, maxima = [], [begun.max_logit_N]
    for i, prefix in enumerate(prefixes):
        assert segments[i][2] == (lengths[prefix] if prefix >= 0 else 0), (segments, prefixes)
        if prefix < 0:
            rows.append(next(done))
            continue
        k_KMH, v_KMW = torch.cat((ks[prefix], ks[i])), torch.cat((vs[prefix], vs[i]))
        out, lse = _continue(qs[i], k_KMH, v_KMW, scale)
        rows.append((out, lse))
        maxima.append(_statistic(stats, qs[i].detach(), k_KMH.detach(), lse, scale))
    return Attended(
        torch.cat([out for out, _ in rows]),
        torch.stack([m for m in maxima if m is not None]).amax(0) if stats.max_logit else None,
        torch.cat([lse for _, lse in rows]) if stats.lse else None,
    )


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
    seen_QK = _seen(Q, K, Q, K, q_QNH.device)
    best = []
    for start in range(0, Q, _QUERY_BLOCK):
        block = slice(start, start + _QUERY_BLOCK)
        logits_NQK = torch.matmul(q_QNH[block].float().transpose(0, 1) * scale, k_NHK)
        best.append(logits_NQK.masked_fill_(~seen_QK[block], -torch.inf).amax((1, 2)))
    return torch.stack(best).amax(0)
