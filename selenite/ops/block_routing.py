"""Which blocks of keys a row reads: those whose mean key suits its query (MoBA, arXiv 2502.13189,
section 2.2, equations 3 to 6).

A row's own block is read without being scored, since its mean has keys that come later. Means are
of rotated keys, and products are float32. The choice has no gradient.

Letters: ``B`` keys of a block, ``n`` whole blocks of a sequence, ``C`` choices of a row (query
heads, or groups of them that choose together), ``K`` blocks of a choice beside the row's own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from selenite.ops.attention_context import AttentionContext, BlockRouting
from selenite.runtime import is_batch_invariant

GRAIN = 16
"""Keys that are summed first: those of a page, if pages have the usual size. Trainer and engine
then add the same numbers in the same order; with pages of another size means differ by rounding."""

_MOST_SCORES = 1 << 22  # held at once: 16 MiB


def sum_keys(k_XPMH: Tensor) -> Tensor:
    """Sums of ``P`` keys each; float32 ``[X, M, H]``."""
    if not is_batch_invariant():
        return k_XPMH.sum(1, dtype=torch.float32)
    # One addition after another: a sum has the same bits whatever lies beside it.
    total_XMH = torch.zeros_like(k_XPMH[:, 0], dtype=torch.float32)
    for part in range(k_XPMH.shape[1]):
        total_XMH = total_XMH + k_XPMH[:, part]
    return total_XMH


def block_means(k_KMH: Tensor, block_size: int) -> Tensor:
    """Mean keys of the whole blocks of a sequence; float32 ``[n, M, H]``."""
    n, grain = len(k_KMH) // block_size, math.gcd(block_size, GRAIN)
    k_XPMH = k_KMH[: n * block_size].unflatten(0, (n * block_size // grain, grain))
    return means_of_sums(sum_keys(k_XPMH), block_size // grain, block_size)


def means_of_sums(sums_XMH: Tensor, per_block: int, block_size: int) -> Tensor:
    """Mean keys of blocks from the sums of their parts, ``per_block`` for each; ``[n, M, H]``."""
    n = len(sums_XMH) // per_block
    return sum_keys(sums_XMH[: n * per_block].unflatten(0, (n, per_block))) / block_size


def sequence_means(
    k_SMH: Tensor,
    rows_K: Tensor,
    context: AttentionContext,
    sequence: int,
    layer: int,
    routing: BlockRouting,
) -> Tensor:
    """Mean keys of a sequence's whole blocks, ``[n, M, H]``: from pages, where these have sums;
    else from its keys, which are in ``rows_K``."""
    pages, size = context.pages, routing.block_size
    if pages is None or size % pages.size:
        return block_means(k_SMH.detach()[rows_K], size)
    known_P = pages.table_BP[sequence, : len(rows_K) // pages.size]
    return means_of_sums(pages.store.page_sums(layer)[known_P], size // pages.size, size)


@torch.no_grad()
def choose_blocks(
    q_TNH: Tensor, means_nMH: Tensor, positions_T: Tensor, routing: BlockRouting
) -> Tensor:
    """The blocks that rows of one sequence read beside their own; int64 ``[T, C, K]``, see
    ``pick_blocks``.

    Args:
        q_TNH: queries.
        means_nMH: mean keys of the sequence's whole blocks.
        positions_T: positions of the rows.
        routing: how they choose.
    """
    (T, N, _), (n, M, _) = q_TNH.shape, means_nMH.shape
    means_MHn = means_nMH.permute(1, 2, 0)
    at_once = max(1, _MOST_SCORES // max(1, N * n))
    chosen = []
    for row in range(0, T, at_once):
        q_MtGH = q_TNH[row : row + at_once].float().unflatten(1, (M, -1)).transpose(0, 1)
        scores_MXn = torch.bmm(q_MtGH.flatten(1, 2), means_MHn)
        scores_tNn = scores_MXn.unflatten(1, q_MtGH.shape[1:3]).transpose(0, 1).flatten(1, 2)
        chosen.append(pick_blocks(scores_tNn, positions_T[row : row + at_once], routing))
    return torch.cat(chosen)


def pick_blocks(scores_TNn: Tensor, positions_T: Tensor, routing: BlockRouting) -> Tensor:
    """The best of the blocks before each row's own, in ascending order and behind them -1 where
    there are not as many; int64 ``[T, C, K]`` with ``K = min(top_k - 1, n)``.

    Args:
        scores_TNn: products of queries and mean keys; may be changed.
        positions_T: positions of the rows.
        routing: how they choose.
    """
    T, N, n = scores_TNn.shape
    together = routing.heads_together
    scores_TCn = scores_TNn
    if together > 1:
        scores_TCn = scores_TNn.view(T, N // together, together, n).sum(2)
    own_T = positions_T // routing.block_size
    is_later_Tn = torch.arange(n, device=own_T.device) >= own_T[:, None]
    if routing.has_sink and n:
        scores_TCn[..., 0] = torch.inf
    scores_TCn = scores_TCn.masked_fill(is_later_Tn[:, None], -torch.inf)
    values_TCK, indices_TCK = largest(scores_TCn, min(routing.top_k - 1, n))
    blocks_TCK = indices_TCK.masked_fill(values_TCK == -torch.inf, n).sort(-1).values
    return blocks_TCK.masked_fill(blocks_TCK == n, -1)


def largest(scores_TCn: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """The ``K`` largest and their places, of equal ones the first: so that neither later blocks nor
    other sequences, which make ``n`` another, change a choice."""
    values, indices = scores_TCn.topk(K, dim=-1)
    if K == 0 or scores_TCn.is_meta:
        return values, indices
    # Whose last one is tied with one that was left out: few, if any.
    last_TC1 = values[..., -1:]
    is_tied_TC = ((scores_TCn >= last_TC1).sum(-1) > K) & (last_TC1[..., 0] > -torch.inf)
    if bool(is_tied_TC.any()):
        ordered = scores_TCn[is_tied_TC].sort(dim=-1, descending=True, stable=True)
        values[is_tied_TC] = ordered.values[:, :K]
        indices[is_tied_TC] = ordered.indices[:, :K]
    return values, indices
