"""Attention of each sequence's rows over its cached entries, where our kernel does not serve
(``paged_attention.py``).

One dense product a sequence, keys gathered in logical order. Needs rows at consecutive positions.
Without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selenite.ops.attention_context import Attended, AttentionContext, reduce_max

SUPPORTS = frozenset({"slot_biases"})


def attend_segments(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int = 0,
) -> Attended:
    """``attend_reference`` for a context with pages and no other optional field than biases."""
    pages = context.pages
    assert pages is not None
    N, M = q_TNH.shape[1], k_SMH.shape[1]
    bias_SN = context.key_bias(layer)
    outs, maxima, lses = [], [], []
    for sequence, (start, stop, first) in enumerate(context.segments):
        slots = pages.slots(sequence)[: first + stop - start]
        Q, K = stop - start, len(slots)
        k_MHK = k_SMH[slots].permute(1, 2, 0)
        v_MKW = v_SMW[slots].transpose(0, 1)
        q_MXH = (
            q_TNH[start:stop].view(Q, M, N // M, -1).transpose(0, 1).reshape(M, -1, k_MHK.size(1))
        )
        # In float32: a bfloat16 product would round the logits themselves to 8 bits.
        logits = torch.matmul(q_MXH.float(), k_MHK.float()).view(M, Q, N // M, K) * scale
        if bias_SN is not None:
            logits += bias_SN[slots].T.reshape(M, 1, N // M, K)
        if Q > 1:
            future_QK = torch.ones(Q, K, dtype=torch.bool, device=logits.device).triu_(first + 1)
            logits.masked_fill_(future_QK[None, :, None], -torch.inf)
        lse = logits.logsumexp(-1, keepdim=True)
        weights = (logits - lse).exp().to(v_MKW.dtype).reshape(M, Q * (N // M), K)
        out = torch.matmul(weights, v_MKW).view(M, Q, N // M, -1)
        outs.append(out.transpose(0, 1).reshape(Q, N, -1))
        maxima.append(logits.amax(-1).transpose(0, 1).reshape(Q, N))
        lses.append(lse[..., 0].transpose(0, 1).reshape(Q, N))
    lse_TN = torch.cat(lses)
    return Attended(
        out_TNW=torch.cat(outs),
        max_logit_N=reduce_max(context.stats, torch.cat(maxima), lse_TN),
        lse_TN=lse_TN if context.stats.lse else None,
    )
