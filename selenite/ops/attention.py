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
    block_attention,
    causal_attention,
    paged_attention,
    paged_blocks,
    prefix_attention,
    segment_attention,
    tiled_attention,
    token_attention,
)
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    BlockRouting,
    TokenSelection,
    TokenStep,
    reduce_max,
    select_sequences,
    sequence_keys,
    visible_keys,
)
from selenite.ops.slot_merging import attention_sums
from selenite.ops.slots import store_rows
from selenite.runtime import is_batch_invariant
from selenite.types import Decision

logger = logging.getLogger(__name__)

AttendFunction = Callable[[Tensor, Tensor, Tensor, AttentionContext, float], Attended]
CachedFunction = Callable[[Tensor, Tensor, Tensor, AttentionContext, float, int], Attended]
RoutedFunction = Callable[
    [Tensor, Tensor, Tensor, AttentionContext, float, int, BlockRouting], Attended
]

_PATHS: dict[str, tuple[AttendFunction, frozenset[str]]] = {
    "causal": (causal_attention.attend_causal, causal_attention.SUPPORTS),
    "prefix": (prefix_attention.attend_after_prefix, prefix_attention.SUPPORTS),
}
_CACHED_PATHS: dict[str, tuple[CachedFunction, frozenset[str]]] = {
    "paged": (paged_attention.attend_paged, paged_attention.SUPPORTS),
    "segment": (segment_attention.attend_segments, segment_attention.SUPPORTS),
}
_ROUTED_PATHS: dict[str, tuple[RoutedFunction, frozenset[str]]] = {
    "blocks": (block_attention.attend_blocks, block_attention.SUPPORTS),
    "paged_blocks": (paged_blocks.attend_paged_blocks, paged_blocks.SUPPORTS),
}
_SUPPORTS = {
    **{
        name: supports
        for paths in (_PATHS, _CACHED_PATHS, _ROUTED_PATHS)
        for name, (_, supports) in paths.items()
    },
    "tiled": tiled_attention.SUPPORTS,
    "tokens": token_attention.SUPPORTS,
    "apart": frozenset({"slot_biases"}),
}


def choose_attention(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, layer: int = 0
) -> Decision:
    """The path for a step: ``causal``, ``prefix``, ``paged``, ``segment``, ``blocks``,
    ``paged_blocks``, ``tokens``, ``tiled``, ``apart`` or ``reference``."""
    fast = _choose_fast(q_TNH, k_SMH, v_SMW, context, layer)
    unsupported = context.extras() - _SUPPORTS[fast.value]
    if unsupported:
        names = ", ".join(sorted(unsupported))
        return Decision("reference", f"the {fast.value} path does not support: {names}")
    return fast


def _choose_fast(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, layer: int
) -> Decision:
    ways = context.ways(layer)
    way = ways[0][0]
    if len(ways) == 1 and isinstance(way, TokenStep):
        return Decision("tokens", "decoding rows choose tokens, or read chosen ones")
    if is_batch_invariant() and not any(isinstance(way, TokenStep) for way, _ in ways):
        return Decision("tiled", "batch-invariant mode")
    if len(ways) > 1:
        return Decision("apart", "some sequences choose what they read and others do not")
    has_kernel = paged_attention.serves(q_TNH, k_SMH, v_SMW, context)
    assert not isinstance(way, TokenStep)
    if way is not None and has_kernel and paged_blocks.serves(context, way):
        return Decision("paged_blocks", "rows over chosen blocks of cached entries, by our kernel")
    if way is not None:
        return Decision("blocks", "rows over chosen blocks, without our kernel for pages")
    if context.pages is None and context.shared_prefix is not None:
        return Decision("prefix", "packed documents, some of which go on from a shared prefix")
    if context.pages is None:
        return Decision("causal", "packed documents without a cache")
    if has_kernel:
        return Decision("paged", "rows over cached entries, by our kernel")
    return Decision("segment", "rows over cached entries, without our kernel")


def attend(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int = 0,
) -> Attended:
    """Softmax attention of a step's rows over what they may see.

    Args:
        q_TNH: queries, already rotated.
        k_SMH: keys by row of the step, or by slot when the context has pages.
        v_SMW: values, likewise.
        context: what each row may see, and which statistics to return.
        scale: multiplies the logits.
        layer: of the model: some may read everything where others choose blocks.
    """
    choice = choose_attention(q_TNH, k_SMH, v_SMW, context, layer)
    if choice.value == "reference":
        message = f"attention runs on the slow reference: {choice.reason}"
        log.once(logger, message, logging.WARNING)
        return attend_reference(q_TNH, k_SMH, v_SMW, context, scale, layer)
    _keep(q_TNH, k_SMH, context, scale, layer)
    if choice.value == "tiled":
        return tiled_attention.attend_tiled(q_TNH, k_SMH, v_SMW, context, scale, layer)
    if choice.value == "apart":
        return _attend_apart(q_TNH, k_SMH, v_SMW, context, scale, layer)
    way = context.ways(layer)[0][0]
    if isinstance(way, TokenStep):
        return token_attention.attend_tokens(q_TNH, k_SMH, v_SMW, context, scale, way, layer)
    if way is not None:
        function = _ROUTED_PATHS[choice.value][0]
        return function(q_TNH, k_SMH, v_SMW, context, scale, layer, way)
    if choice.value in _CACHED_PATHS:
        return _CACHED_PATHS[choice.value][0](q_TNH, k_SMH, v_SMW, context, scale, layer)
    return _PATHS[choice.value][0](q_TNH, k_SMH, v_SMW, context, scale)


def _attend_apart(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int,
) -> Attended:
    """Sequences that read in different ways, each kind by itself."""
    rows, parts = list[Tensor](), list[Attended]()
    for _, sequences in context.ways(layer):
        row_t, part = select_sequences(context, sequences)
        keys = (k_SMH, v_SMW) if context.pages is not None else (k_SMH[row_t], v_SMW[row_t])
        rows.append(row_t)
        parts.append(attend(q_TNH[row_t], *keys, part, scale, layer))
    place_T = torch.cat(rows).argsort()
    maxima = [part.max_logit_N for part in parts if part.max_logit_N is not None]
    lses = [part.lse_TN for part in parts if part.lse_TN is not None]
    return Attended(
        torch.cat([part.out_TNW for part in parts])[place_T],
        torch.stack(maxima).amax(0) if maxima else None,
        torch.cat(lses)[place_T] if lses else None,
    )


def attend_reference(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int = 0,
) -> Attended:
    """Softmax attention row by row in float32, obeying every field of the context.

    Invisible keys are never read, so that whatever they hold cannot matter.
    """
    _keep(q_TNH, k_SMH, context, scale, layer)
    T, N, _ = q_TNH.shape
    M = k_SMH.shape[1]
    head_M = torch.arange(N, device=q_TNH.device) // (N // M)
    outs, lses, maxima = [], [], []
    scores: dict[int, Tensor] = {}
    ways = {sequence: way for way, sequences in context.ways(layer) for sequence in sequences}
    for row in range(T):
        keys = visible_keys(context, row)
        k_KNH = k_SMH[keys].float()[:, head_M]
        v_KNW = v_SMW[keys].float()[:, head_M]
        logits_NK = torch.einsum("nh,knh->nk", q_TNH[row].float(), k_KNH) * scale
        bias_SX = context.key_bias(layer)
        if bias_SX is not None:
            bias_KX = bias_SX[keys]
            per_head = bias_KX if bias_KX.shape[1] == N else bias_KX[:, head_M]
            logits_NK = logits_NK + per_head.T
        if context.select is not None:
            read_MK = context.select[row][:, keys]
            logits_NK = logits_NK.masked_fill(~read_MK[head_M], -torch.inf)
            v_KNW = v_KNW.masked_fill(~read_MK[head_M].T[:, :, None], 0)
        way = ways[int(context.sequence_T[row])]
        if isinstance(way, BlockRouting):
            read_NK = _read(q_TNH[row].detach().float(), k_KNH.detach(), way)
            logits_NK = logits_NK.masked_fill(~read_NK, -torch.inf)
        elif way is not None and not way.chooses:
            read_NK = context.derived["read", row]
            logits_NK = logits_NK.masked_fill(~read_NK, -torch.inf)
        lse_N = logits_NK.logsumexp(-1)
        if isinstance(way, TokenStep) and way.chooses:
            mass_NK = (logits_NK - lse_N[:, None]).exp()
            context.derived["read", row] = _kept(mass_NK, way.selection, M)
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


def _keep(
    q_TNH: Tensor, k_SMH: Tensor, context: AttentionContext, scale: float, layer: int
) -> None:
    """What the context asks to be kept of a layer, beside its output."""
    kept = context.kept_queries
    if kept is not None:
        store_rows(kept.stored_LXNH[layer], q_TNH, kept.place_T)
    for sequence, is_summed in enumerate(context.summed or ()):
        if is_summed:
            start, stop, first = context.segments[sequence]
            k_KMH = k_SMH[sequence_keys(context, sequence)]
            sums_MK = attention_sums(q_TNH[start:stop], k_KMH, first, scale)
            context.derived["sums", layer, sequence] = sums_MK


def _kept(mass_NK: Tensor, selection: TokenSelection, M: int) -> Tensor:
    """Which tokens each head reads in the layers that follow, the row's own being the last; bool
    ``[N, K]``."""
    N, K = mass_NK.shape
    together = {"head": 1, "group": N // M, "layer": N}[selection.share]
    read_NK = torch.zeros(N, K, dtype=torch.bool, device=mass_NK.device)
    first_recent = K - selection.num_recent
    for first in range(0, N, together):
        heads = slice(first, first + together)
        mass = mass_NK[heads].sum(0).tolist()
        is_free = [selection.num_sinks <= token < first_recent for token in range(K)]
        best = sorted(range(K), key=lambda token: (is_free[token], -mass[token], token))
        read_NK[heads, best[: selection.budget]] = True
    return read_NK


def _read(q_NH: Tensor, k_KNH: Tensor, routing: BlockRouting) -> Tensor:
    """Which of the keys that a row sees each of its heads reads, the last being the row's own;
    bool ``[N, K]``."""
    (N, _), K = q_NH.shape, len(k_KNH)
    size = routing.block_size
    num_past = (K - 1) // size
    read_NK = torch.zeros(N, K, dtype=torch.bool, device=q_NH.device)
    read_NK[:, num_past * size :] = True
    means = [k_KNH[block * size : (block + 1) * size].mean(0) for block in range(num_past)]
    scores = [(q_NH * mean_NH).sum(-1).view(-1, routing.heads_together).sum(1) for mean_NH in means]
    for choice in range(N // routing.heads_together):
        heads = slice(choice * routing.heads_together, (choice + 1) * routing.heads_together)
        best = sorted(range(num_past), key=lambda block: float(scores[block][choice]), reverse=True)
        if routing.has_sink:
            best.sort(key=lambda block: block > 0)
        for block in best[: routing.top_k - 1]:
            read_NK[heads, block * size : (block + 1) * size] = True
    return read_NK
