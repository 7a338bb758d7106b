"""Attention of packed rows over what they may see: the model's only door to it.

``attend_reference`` computes one row at a time and obeys every field of the context; it is the
oracle of the tests. The fast paths declare in ``SUPPORTS`` the optional fields that they obey; a
context that uses another one runs on the reference, and the reason is logged once.

Letters: as in ``attention_context.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from selenite import log
from selenite.ops import (
    causal_attention,
    paged_attention,
    prefix_attention,
    segment_attention,
    tiled_attention,
)
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    reduce_max,
    visible_keys,
)
from selenite.runtime import is_batch_invariant
from selenite.types import Decision

logger = logging.getLogger(__name__)

AttendFunction = Callable[[Tensor, Tensor, Tensor, AttentionContext, float], Attended]

_PATHS: dict[str, tuple[AttendFunction, frozenset[str]]] = {
    "causal": (causal_attention.attend_causal, causal_attention.SUPPORTS),
    "paged": (paged_attention.attend_paged, paged_attention.SUPPORTS),
    "prefix": (prefix_attention.attend_after_prefix, prefix_attention.SUPPORTS),
    "segment": (segment_attention.attend_segments, segment_attention.SUPPORTS),
    "tiled": (tiled_attention.attend_tiled, tiled_attention.SUPPORTS),
}


def choose_attention(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext
) -> Decision:
    """The path for a step: ``causal``, ``prefix``, ``paged``, ``segment``, ``tiled`` or
    ``reference``."""
    if is_batch_invariant():
        fast = Decision("tiled", "batch-invariant mode")
    elif context.pages is None and context.shared_prefix is not None:
        fast = Decision("prefix", "packed documents, some of which go on from a shared prefix")
    elif context.pages is None:
        fast = Decision("causal", "packed documents without a cache")
    elif paged_attention.serves(q_TNH, k_SMH, v_SMW, context):
        fast = Decision("paged", "rows over cached entries, by our kernel")
    else:
        fast = Decision("segment", "rows over cached entries, without our kernel")
    unsupported = context.extras() - _PATHS[fast.value][1]
    if unsupported:
        names = ", ".join(sorted(unsupported))
        return Decision("reference", f"the {fast.value} path does not support: {names}")
    return fast


def attend(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """Softmax attention of a step's rows over what they may see.

    Args:
        q_TNH: queries, already rotated.
        k_SMH: keys by row of the step, or by slot when the context has pages.
        v_SMW: values, likewise.
        context: what each row may see, and which statistics to return.
        scale: multiplies the logits.
    """
    choice = choose_attention(q_TNH, k_SMH, v_SMW, context)
    if choice.value == "reference":
        message = f"attention runs on the slow reference: {choice.reason}"
        log.once(logger, message, logging.WARNING)
        return attend_reference(q_TNH, k_SMH, v_SMW, context, scale)
    return _PATHS[choice.value][0](q_TNH, k_SMH, v_SMW, context, scale)


def attend_reference(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """Softmax attention row by row in float32, obeying every field of the context.

    Invisible keys are never read, so that whatever they hold cannot matter.
    """
    T, N, _ = q_TNH.shape
    M = k_SMH.shape[1]
    head_M = torch.arange(N, device=q_TNH.device) // (N // M)
    outs, lses, maxima = [], [], []
    scores: dict[int, Tensor] = {}
    for row in range(T):
        keys = visible_keys(context, row)
        k_KNH = k_SMH[keys].float()[:, head_M]
        v_KNW = v_SMW[keys].float()[:, head_M]
        logits_NK = torch.einsum("nh,knh->nk", q_TNH[row].float(), k_KNH) * scale
        if context.bias is not None:
            bias_KX = context.bias[keys]
            per_head = bias_KX if bias_KX.shape[1] == N else bias_KX[:, head_M]
            logits_NK = logits_NK + per_head.T
        if context.select is not None:
            read_MK = context.select[row][:, keys]
            logits_NK = logits_NK.masked_fill(~read_MK[head_M], -torch.inf)
            v_KNW = v_KNW.masked_fill(~read_MK[head_M].T[:, :, None], 0)
        lse_N = logits_NK.logsumexp(-1)
        outs.append(torch.einsum("nk,knw->nw", (logits_NK - lse_N[:, None]).exp(), v_KNW))
        lses.append(lse_N.detach())
        maxima.append(logits_NK.detach().amax(-1))
        if row in context.stats.score_rows:
            scores[row] = logits_NK.detach()
    return Attended(
        out_TNW=torch.stack(outs).to(q_TNH.dtype),
        max_logit_N=reduce_max(context.stats, torch.stack(maxima), torch.stack(lses)),
        lse_TN=torch.stack(lses) if context.stats.lse else None,
        scores=scores if context.stats.score_rows else None,
    )
