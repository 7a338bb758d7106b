"""Batch-invariant attention: tiles of 16 query rows by 64 keys, counted from position 0.

Every product has one fixed shape and every row meets its keys in the same tiles and the same
order, whether it comes in a packed training batch, a prefill chunk or alone; so its bits are the
same. Works with and without pages, and has gradients. The price is about a factor of three.

Rows that choose blocks (``ops/block_routing.py``) do so by products of the same shapes, and meet
the other blocks' tiles as if they were hidden.

Letters: ``A`` query tiles, ``Q`` = 16 rows of a tile, ``Y`` = 64 keys of a tile, ``n`` whole blocks
of a sequence.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops.activation import exp
from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    BlockRouting,
    TokenStep,
    reduce_max,
)
from selenite.ops.block_routing import pick_blocks, sequence_means

SUPPORTS: frozenset[str] = frozenset()

QUERY_TILE = 16
KEY_TILE = 64


def attend_tiled(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int = 0,
) -> Attended:
    """``attend_reference`` for a context without optional fields, bit-stable by row.

    Computed in float32; the result is rounded to the dtype of ``q``.
    """
    outs, maxima, lses = [], [], []
    ways = {i: way for way, sequences in context.ways(layer) for i in sequences}
    for sequence, (start, stop, first) in enumerate(context.segments):
        rows_K = torch.arange(start, stop, device=q_TNH.device)
        if context.pages is None:
            k_KMH, v_KMW = k_SMH[start:stop], v_SMW[start:stop]
        else:
            rows_K = context.pages.slots(sequence)[: first + stop - start]
            k_KMH, v_KMW = k_SMH[rows_K], v_SMW[rows_K]
        choice = None
        way = ways[sequence]
        assert not isinstance(way, TokenStep), "such rows have a path of their own"
        if way is not None:
            means_nMH = sequence_means(k_SMH, rows_K, context, sequence, layer, way)
            choice = way, means_nMH
        out, top, lse = _attend_sequence(
            q_TNH[start:stop].float() * scale, k_KMH.float(), v_KMW.float(), first, choice
        )
        outs.append(out.to(q_TNH.dtype))
        maxima.append(top.detach())
        lses.append(lse.detach())
    lse_TN = torch.cat(lses)
    return Attended(
        out_TNW=torch.cat(outs),
        max_logit_N=reduce_max(context.stats, torch.cat(maxima), lse_TN),
        lse_TN=lse_TN if context.stats.lse else None,
    )


def _attend_sequence(
    q_TNH: Tensor,
    k_KMH: Tensor,
    v_KMW: Tensor,
    first: int,
    choice: tuple[BlockRouting, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[T, N, W]``, maximum and log-sum-exp ``[T, N]`` of rows from position ``first``,
    which read all keys up to their own, or choose blocks by their mean keys."""
    T, N, H = q_TNH.shape
    K, M, W = v_KMW.shape
    lead = first % QUERY_TILE  # rows of the first tile that are not in this step
    q = F.pad(q_TNH, (0, 0, 0, 0, lead, -(lead + T) % QUERY_TILE))
    q_ANQH = q.view(-1, QUERY_TILE, N, H).transpose(1, 2)
    A = q_ANQH.shape[0]
    tail = -K % KEY_TILE
    k_KNH = F.pad(k_KMH, (0, 0, 0, 0, 0, tail)).repeat_interleave(N // M, 1)
    # A column of ones beside the values sums the weights within the same product.
    v_KNW = F.pad(F.pad(v_KMW, (0, 0, 0, 0, 0, tail)), (0, 1), value=1.0)
    v_KNW = v_KNW.repeat_interleave(N // M, 1)
    positions_AQ = first - lead + torch.arange(A * QUERY_TILE, device=q.device).view(A, QUERY_TILE)
    is_read_ANQn = None
    if choice is not None:
        is_read_ANQn = _read_blocks(q_ANQH, choice[1], positions_AQ, choice[0])
    # Not -inf: of two of these the difference is 0, for rows that have read nothing yet.
    top = q.new_full((A, N, QUERY_TILE, 1), torch.finfo(q.dtype).min)
    mixed = q.new_zeros(A, N, QUERY_TILE, W + 1)
    for key in range(0, K, KEY_TILE):
        tiles = slice(_first_tile_that_sees(key, first - lead), A)
        k_NHY = k_KNH[key : key + KEY_TILE].permute(1, 2, 0)
        v_NYW = v_KNW[key : key + KEY_TILE].transpose(0, 1)
        key_Y = torch.arange(key, key + KEY_TILE, device=q.device)
        hidden_ANQY = (key_Y > positions_AQ[tiles, :, None])[:, None]
        if choice is not None and is_read_ANQn is not None:
            block_Y = (key_Y // choice[0].block_size).clamp(max=is_read_ANQn.shape[3] - 1)
            hidden_ANQY = hidden_ANQY | ~is_read_ANQn[tiles][..., block_Y]
        logits = _bmm(q_ANQH[tiles], k_NHY).masked_fill(hidden_ANQY, -torch.inf)
        new_top = torch.maximum(top[tiles], logits.detach().amax(-1, keepdim=True))
        weights = exp(logits - new_top)
        faded = mixed[tiles] * exp(top[tiles] - new_top)
        mixed = torch.cat((mixed[: tiles.start], faded + _bmm(weights, v_NYW)))
        top = torch.cat((top[: tiles.start], new_top))
    total = mixed[..., W:]

    def rows(x_ANQX: Tensor) -> Tensor:
        return x_ANQX.transpose(1, 2).reshape(A * QUERY_TILE, N, -1)[lead : lead + T]

    return rows(mixed[..., :W] / total), rows(top)[..., 0], rows(top + total.log())[..., 0]


@torch.no_grad()
def _read_blocks(
    q_ANQH: Tensor, means_nMH: Tensor, positions_AQ: Tensor, routing: BlockRouting
) -> Tensor:
    """Which blocks rows read, their own included; bool ``[A, N, Q, blocks]``."""
    (A, N, Q, _), (n, M, _) = q_ANQH.shape, means_nMH.shape
    means_nNH = F.pad(means_nMH, (0, 0, 0, 0, 0, -n % KEY_TILE)).repeat_interleave(N // M, 1)
    parts = [
        _bmm(q_ANQH, means_nNH[block : block + KEY_TILE].permute(1, 2, 0))
        for block in range(0, n, KEY_TILE)
    ]
    scores_ANQn = torch.cat(parts, -1)[..., :n] if parts else q_ANQH.new_empty(A, N, Q, 0)
    scores_TNn = scores_ANQn.transpose(1, 2).reshape(A * Q, N, n)
    # Rows of tiles that are not in this step may come before the first block, or after the last.
    position_T = positions_AQ.reshape(-1).clamp(min=0)
    chosen_TCK = pick_blocks(scores_TNn, position_T, routing)
    chosen_TNK = chosen_TCK.repeat_interleave(routing.heads_together, 1)
    own_T = (position_T // routing.block_size).clamp(max=n)
    is_read_TNn = torch.zeros(A * Q, N, n + 2, dtype=torch.bool, device=q_ANQH.device)
    is_read_TNn.scatter_(2, chosen_TNK.masked_fill(chosen_TNK < 0, n + 1), True)
    is_read_TNn.scatter_(2, own_T[:, None, None].expand(A * Q, N, 1), True)
    return is_read_TNn[..., : n + 1].view(A, Q, N, n + 1).transpose(1, 2)


def _first_tile_that_sees(key: int, first_row: int) -> int:
    """Index of the first query tile with a row at or after ``key``."""
    return max(0, (key - first_row) // QUERY_TILE)


def _bmm(x_ANQI: Tensor, y_NIO: Tensor) -> Tensor:
    """Products of every tile and head, each of one fixed shape."""
    A, N, Q, inner = x_ANQI.shape
    y = y_NIO.expand(A, *y_NIO.shape).reshape(A * N, inner, -1)
    return torch.bmm(x_ANQI.reshape(A * N, Q, inner), y).view(A, N, Q, -1)
