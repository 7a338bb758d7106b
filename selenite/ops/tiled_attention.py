"""Batch-invariant attention: tiles of 16 query rows by 64 keys, counted from position 0.

Every product has one fixed shape and every row meets its keys in the same tiles and the same
order, whether it comes in a packed training batch, a prefill chunk or alone; so its bits are the
same. Works with and without pages, and has gradients. The price is about a factor of three.

Letters: ``A`` query tiles, ``Q`` = 16 rows of a tile, ``Y`` = 64 keys of a tile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops.activation import exp
from selenite.ops.attention_context import Attended, AttentionContext, reduce_max

SUPPORTS: frozenset[str] = frozenset()

QUERY_TILE = 16
KEY_TILE = 64


def attend_tiled(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for a context without optional fields, bit-stable by row.

    Computed in float32; the result is rounded to the dtype of ``q``.
    """
    outs, maxima, lses = [], [], []
    for sequence, (start, stop, first) in enumerate(context.segments):
        if context.pages is None:
            k_KMH, v_KMW = k_SMH[start:stop], v_SMW[start:stop]
        else:
            slots = context.pages.slots(sequence)[: first + stop - start]
            k_KMH, v_KMW = k_SMH[slots], v_SMW[slots]
        out, top, lse = _attend_sequence(
            q_TNH[start:stop].float() * scale, k_KMH.float(), v_KMW.float(), first
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
    q_TNH: Tensor, k_KMH: Tensor, v_KMW: Tensor, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Output ``[T, N, W]``, maximum and log-sum-exp ``[T, N]`` of rows from position ``first``."""
    T, N, H = q_TNH.shape
    K, M, W = v_KMW.shape
    lead = first % QUERY_TILE  # rows of the first tile that are not in this step
    q = F.pad(q_TNH, (0, 0, 0, 0, lead, -(lead + T) % QUERY_TILE))
    q_ANQH = q.view(-1, QUERY_TILE, N, H).transpose(1, 2)
    A = q_ANQH.shape[0]
    tail = -K % KEY_TILE
    k_KNH = F.pad(k_KMH, (0, 0, 0, 0, 0, tail)).repeat_interleave(N // M, 1)
    # A column of ones beside the values sums the weights within the same product.
    v_KNW = F.pad(F.pad(v_KMW, (0, 1), value=1.0), (0, 0, 0, 0, 0, tail))
    v_KNW = v_KNW.repeat_interleave(N // M, 1)
    positions_AQ = first - lead + torch.arange(A * QUERY_TILE, device=q.device).view(A, QUERY_TILE)
    top = q.new_full((A, N, QUERY_TILE, 1), -torch.inf)
    mixed = q.new_zeros(A, N, QUERY_TILE, W + 1)
    for key in range(0, K, KEY_TILE):
        tiles = slice(_first_tile_that_sees(key, first - lead), A)
        k_NHY = k_KNH[key : key + KEY_TILE].permute(1, 2, 0)
        v_NYW = v_KNW[key : key + KEY_TILE].transpose(0, 1)
        hidden_AQY = (
            torch.arange(key, key + KEY_TILE, device=q.device) > positions_AQ[tiles, :, None]
        )
        logits = _bmm(q_ANQH[tiles], k_NHY).masked_fill(hidden_AQY[:, None], -torch.inf)
        new_top = torch.maximum(top[tiles], logits.detach().amax(-1, keepdim=True))
        weights = exp(logits - new_top)
        faded = mixed[tiles] * exp(top[tiles] - new_top)
        mixed = torch.cat((mixed[: tiles.start], faded + _bmm(weights, v_NYW)))
        top = torch.cat((top[: tiles.start], new_top))
    total = mixed[..., W:]

    def rows(x_ANQX: Tensor) -> Tensor:
        return x_ANQX.transpose(1, 2).reshape(A * QUERY_TILE, N, -1)[lead : lead + T]

    return rows(mixed[..., :W] / total), rows(top)[..., 0], rows(top + total.log())[..., 0]


def _first_tile_that_sees(key: int, first_row: int) -> int:
    """Index of the first query tile with a row at or after ``key``."""
    return max(0, (key - first_row) // QUERY_TILE)


def _bmm(x_ANQI: Tensor, y_NIO: Tensor) -> Tensor:
    """Products of every tile and head, each of one fixed shape."""
    A, N, Q, inner = x_ANQI.shape
    y = y_NIO.expand(A, *y_NIO.shape).reshape(A * N, inner, -1)
    return torch.bmm(x_ANQI.reshape(A * N, Q, inner), y).view(A, N, Q, -1)
