"""Attention of rows that choose blocks of keys (MoBA, arXiv 2502.13189, section 2.3), with
gradients: the path of training, and of serving where our kernel for pages does not run.

    rows         0 1 2 3 | 4 5 6 7 | 8 9 ...
    own block    every row over its block up to itself: squares with a causal mask
    chosen       (row, head) pairs sorted by the block they chose, cut into tiles of rows that
                 all see all keys of one block
    joined       by the parts' log-sum-exps; one softmax over all keys that were read

The backward pass takes each part with the output and log-sum-exp of the whole, which is what the
gradient of one softmax needs, so that parts never wait for each other.

Letters: ``C`` squares of one length, ``L`` that length, ``U`` blocks that may be chosen, ``B`` keys
of one, ``K`` blocks that a head of a row chose, ``P`` pairs (of all rows, heads and ``K``), ``X``
tiles, ``Q`` rows of a tile, ``Y`` keys of all sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from selenite.ops.attention_context import (
    Attended,
    AttentionContext,
    BlockRouting,
    StatsRequest,
    sequence_keys,
)
from selenite.ops.block_routing import choose_blocks, sequence_means
from selenite.ops.causal_attention import max_logit, widened

SUPPORTS: frozenset[str] = frozenset({"shared_prefix"})

_LENGTH_MULTIPLE = 64  # of squares: the CPU's kernel compiles code for every new length
_TILE = 192  # rows; from here on the CPU's kernel takes 64 at a time
_MOST_PAIRS = 1 << 26  # elements of the outputs of pairs, held at once
_MOST_TILES = 1 << 24  # elements of the keys of tiles, held at once
_MOST_LOGITS = 1 << 28  # of squares, held at once where there is no flash kernel


def attend_blocks(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    layer: int,
    routing: BlockRouting,
) -> Attended:
    """``attend_reference`` for a context all of whose sequences choose blocks by ``routing``."""
    keys = Keys.of(context, routing.block_size)
    chosen = []
    for sequence, (start, stop, _) in enumerate(context.segments):
        rows_K = keys.rows_Y[keys.starts[sequence] : keys.starts[sequence + 1]]
        means_nMH = sequence_means(k_SMH, rows_K, context, sequence, layer, routing)
        rows = q_TNH.detach()[start:stop], means_nMH, context.positions_T[start:stop]
        chosen.append(choose_blocks(*rows, routing))
    return attend_chosen(q_TNH, k_SMH, v_SMW, context, scale, routing.block_size, chosen)


def attend_chosen(
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    context: AttentionContext,
    scale: float,
    block_size: int,
    chosen: list[Tensor],
) -> Attended:
    """Attention of rows over their own blocks and chosen ones, as ``pick_blocks`` gives them, for
    each sequence. Any other choice of blocks before a row's own will do."""
    keys = Keys.of(context, block_size)
    squares = [*_squares(context, keys, block_size)]
    most = max(part.shape[2] for part in chosen)
    together = q_TNH.shape[1] // chosen[0].shape[1]
    # Blocks of all sequences are counted through.
    unit_TNK = torch.cat(
        [
            torch.nn.functional.pad(
                part.masked_fill(part < 0, -1 - keys.first_unit[i]) + keys.first_unit[i],
                (0, most - part.shape[2]),
                value=-1,
            )
            for i, part in enumerate(chosen)
        ]
    ).repeat_interleave(together, 1)
    out_TNW, lse_TN, exact_N = _Blocks.apply(
        q_TNH, k_SMH, v_SMW, squares, unit_TNK, keys.units_UB, scale, context.stats
    )
    statistic = None
    if context.stats.max_logit is not None:
        statistic = exact_N if context.stats.max_logit == "exact" else lse_TN.amax(0)
    return Attended(out_TNW, statistic, lse_TN if context.stats.lse else None)


class Keys(NamedTuple):
    """Where the keys of all sequences lie, one sequence after another."""

    rows_Y: Tensor  # int64: rows of the step, or slots
    starts: list[int]  # of each sequence in it, and the end
    units_UB: Tensor  # int64: rows of the keys of each whole block
    first_unit: list[int]  # of each sequence

    @classmethod
    def of(cls, context: AttentionContext, block_size: int) -> Keys:
        """Made once for all layers."""
        known = context.derived.get(("keys", block_size))
        if known is not None:
            return known
        rows, units, starts, first_unit = list[Tensor](), list[Tensor](), [0], list[int]()
        num_units = 0
        for sequence in range(len(context.segments)):
            rows_K = sequence_keys(context, sequence)
            n = len(rows_K) // block_size
            rows.append(rows_K)
            units.append(rows_K[: n * block_size].view(n, block_size))
            starts.append(starts[-1] + len(rows_K))
            first_unit.append(num_units)
            num_units += n
        found = cls(torch.cat(rows), starts, torch.cat(units), first_unit)
        context.derived["keys", block_size] = found
        return found


@dataclass(frozen=True)
class _Squares:
    """Own blocks of one length, each as a square of queries and keys.

    Places that are no row of the step repeat one: before the first (their keys are from before the
    step) the first, as padding the last, and padding of keys repeats the last. So they see nothing
    that the row does not see, and the largest logit stays what it is.
    """

    q_CL: Tensor  # int64: row of the step
    k_CL: Tensor  # int64: row of the keys
    is_row_CL: Tensor  # bool

    def parts(self, q_TNH: Tensor) -> Iterator[_Squares]:
        """As many at once as there is room for their logits."""
        (C, L), N = self.q_CL.shape, q_TNH.shape[1]
        count = C if _has_flash(q_TNH) else max(1, _MOST_LOGITS // (N * L * L))
        parts = (x.split(count) for x in (self.q_CL, self.k_CL, self.is_row_CL))
        for part in zip(*parts, strict=True):
            yield _Squares(*part)


def _squares(context: AttentionContext, keys: Keys, block_size: int) -> Iterator[_Squares]:
    """The squares of all rows, those of one length together."""
    if ("squares", block_size) not in context.derived:
        by_length = dict[int, list[tuple[int, int, int, int]]]()
        for sequence, (start, stop, first) in enumerate(context.segments):
            end = first + stop - start
            multiple = min(_LENGTH_MULTIPLE, block_size)
            for begin in range(first // block_size * block_size, end, block_size):
                length = min(begin + block_size, end) - begin
                rounded = -(-length // multiple) * multiple
                row = start + begin - first  # of the square's first place
                square = row, keys.starts[sequence] + begin, length, start
                by_length.setdefault(rounded, []).append(square)
        context.derived["squares", block_size] = [
            _square_rows(keys, squares, length) for length, squares in by_length.items()
        ]
    yield from context.derived["squares", block_size]


def _parts(squares: list[_Squares], q_TNH: Tensor) -> Iterator[_Squares]:
    for square in squares:
        yield from square.parts(q_TNH)


def _square_rows(keys: Keys, squares: list[tuple[int, int, int, int]], length: int) -> _Squares:
    device = keys.rows_Y.device
    row_C1, key_C1, length_C1, start_C1 = torch.tensor(squares, device=device)[:, :, None].unbind(1)
    place_L = torch.arange(length, device=device)
    q_CL = row_C1 + place_L
    is_row_CL = (place_L < length_C1) & (q_CL >= start_C1)
    q_CL = q_CL.minimum(row_C1 + length_C1 - 1).maximum(start_C1)
    return _Squares(q_CL, keys.rows_Y[key_C1 + place_L.minimum(length_C1 - 1)], is_row_CL)


@dataclass(frozen=True)
class _Tiles:
    """Pairs of a row and a head, sorted by the block that they chose."""

    pair_XQ: Tensor  # int64: pair of each place; padding has the number of pairs
    unit_X: Tensor  # int64: block
    head_X: Tensor  # int64: key/value head

    @classmethod
    def of(cls, unit_TNK: Tensor, num_kv_heads: int, num_units: int) -> _Tiles:
        T, N, K = unit_TNK.shape
        device = unit_TNK.device
        if unit_TNK.is_meta:
            return cls._even(unit_TNK, num_units * num_kv_heads)
        head_N = torch.arange(N, device=device) // (N // num_kv_heads)
        bin_P = (unit_TNK + head_N[:, None] * num_units).reshape(-1)
        pair_V = (unit_TNK.reshape(-1) >= 0).nonzero()[:, 0]
        bins_V, order_V = bin_P[pair_V].sort(stable=True)
        pair_V = pair_V[order_V]
        count_Z = bins_V.bincount(minlength=num_units * num_kv_heads)  # by bin
        # Of the usual size of a bin: the largest would fill most tiles with padding.
        usual = -(-len(pair_V) // max(1, int(count_Z.count_nonzero())))
        size = min(_TILE, max(1, usual))
        tiles_Z = -(-count_Z // size)
        bin_X = torch.arange(len(count_Z), device=device).repeat_interleave(tiles_Z)
        # The place of each pair: its bin's first tile, and how many of the bin come before it.
        first_place_Z = (tiles_Z.cumsum(0) - tiles_Z) * size
        before_Z = count_Z.cumsum(0) - count_Z
        place_V = (
            first_place_Z[bins_V] + torch.arange(len(bins_V), device=device) - before_Z[bins_V]
        )
        pair_X = pair_V.new_full((len(bin_X) * size,), T * N * K)
        pair_X[place_V] = pair_V
        return cls(pair_X.view(-1, size), bin_X % num_units, bin_X // num_units)

    @classmethod
    def _even(cls, unit_TNK: Tensor, num_bins: int) -> _Tiles:
        """Without values, as in a memory plan: every row has ``K`` blocks, chosen equally often."""
        usual = -(-unit_TNK.numel() // max(1, num_bins))
        size = min(_TILE, max(1, usual))
        num_tiles = num_bins * -(-usual // size)
        unit_X = unit_TNK.new_empty(num_tiles)
        return cls(unit_TNK.new_empty(num_tiles, size), unit_X, unit_X.clone())

    def chunks(self, block_size: int, width: int) -> Iterator[_Tiles]:
        """Few enough tiles to hold their keys."""
        count = max(1, _MOST_TILES // (block_size * width))
        parts = (x.split(count) for x in (self.pair_XQ, self.unit_X, self.head_X))
        for part in zip(*parts, strict=True):
            yield _Tiles(*part)


class _Blocks(torch.autograd.Function):
    """Rows over their own blocks and chosen ones."""

    @staticmethod
    def forward(
        ctx: Any,
        q_TNH: Tensor,
        k_SMH: Tensor,
        v_SMW: Tensor,
        squares: list[_Squares],
        unit_TNK: Tensor,
        units_UB: Tensor,
        scale: float,
        stats: StatsRequest,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        T, N, _ = q_TNH.shape
        out_TNW = q_TNH.new_empty(T, N, v_SMW.shape[2])
        lse_TN = torch.empty(T, N, device=q_TNH.device, dtype=_accurate(q_TNH.dtype))
        maxima = []
        for square in _parts(squares, q_TNH):
            q, k, v = _square_operands(q_TNH, k_SMH, v_SMW, square)
            out, lse = _forward(q, k, v, True, scale)
            _put_rows(out_TNW, square, out)
            _put_rows(lse_TN, square, lse)
            if stats.max_logit == "exact":
                maxima.append(max_logit(q, k, scale))
        rows_at_once = max(1, _MOST_PAIRS // max(1, N * unit_TNK.shape[2] * v_SMW.shape[2]))
        for row in range(0, T, rows_at_once):
            rows = slice(row, row + rows_at_once)
            operands = q_TNH[rows], k_SMH, v_SMW, unit_TNK[rows], units_UB
            joined = _join_chosen(out_TNW[rows], lse_TN[rows], *operands, scale, stats)
            maxima += joined
        ctx.save_for_backward(q_TNH, k_SMH, v_SMW, out_TNW, lse_TN, unit_TNK, units_UB)
        ctx.squares, ctx.scale = squares, scale
        exact_N = torch.stack(maxima).amax(0) if maxima else None
        ctx.mark_non_differentiable(lse_TN, *([] if exact_N is None else [exact_N]))
        return out_TNW, lse_TN, exact_N

    @staticmethod
    def backward(ctx: Any, dout_TNW: Tensor, _lse: None, _exact: None) -> tuple[Tensor | None, ...]:
        q_TNH, k_SMH, v_SMW, out_TNW, lse_TN, unit_TNK, units_UB = ctx.saved_tensors
        dq_TNH = torch.zeros_like(q_TNH, dtype=lse_TN.dtype)
        dk_SMH = torch.zeros_like(k_SMH, dtype=lse_TN.dtype)
        dv_SMW = torch.zeros_like(v_SMW, dtype=lse_TN.dtype)
        for square in _parts(ctx.squares, q_TNH):
            operands = _square_operands(q_TNH, k_SMH, v_SMW, square)
            width = operands[0].shape[3]
            out, dout = (_square(widened(x, width), square.q_CL) for x in (out_TNW, dout_TNW))
            dout = dout.masked_fill(~square.is_row_CL[:, None, :, None], 0)
            lse = lse_TN[square.q_CL].transpose(1, 2).contiguous()
            dq, dk, dv = _backward(dout, *operands, out, lse, True, ctx.scale)
            _put_rows(dq_TNH, square, dq)
            for grads, part in ((dk_SMH, dk), (dv_SMW, dv)):
                M, width = grads.shape[1:]
                of_kv_head = part[..., :width].unflatten(1, (M, -1)).sum(2, dtype=lse_TN.dtype)
                rows = of_kv_head.transpose(1, 2).reshape(-1, M, width)
                grads.index_add_(0, square.k_CL.reshape(-1), rows)
        T = len(q_TNH)
        rows_at_once = max(1, _MOST_PAIRS // max(1, q_TNH[0].numel() * unit_TNK.shape[2]))
        for row in range(0, T, rows_at_once):
            rows = slice(row, row + rows_at_once)
            of_rows = _OfRows(*(x[rows] for x in (q_TNH, out_TNW, dout_TNW, lse_TN, unit_TNK)))
            dq_TNH[rows] += _add_chosen_gradients(
                of_rows, k_SMH, v_SMW, units_UB, ctx.scale, dk_SMH, dv_SMW
            )
        all_three = dq_TNH.to(q_TNH.dtype), dk_SMH.to(k_SMH.dtype), dv_SMW.to(v_SMW.dtype)
        return *all_three, None, None, None, None, None


def _join_chosen(
    out_TNW: Tensor,
    lse_TN: Tensor,
    q_TNH: Tensor,
    k_SMH: Tensor,
    v_SMW: Tensor,
    unit_TNK: Tensor,
    units_UB: Tensor,
    scale: float,
    stats: StatsRequest,
) -> list[Tensor]:
    """Adds the chosen blocks to ``out`` and ``lse`` of rows over their own, in place; the heads'
    largest logits, where they are asked for."""
    (T, N, W), K = out_TNW.shape, unit_TNK.shape[2]
    tiles = _Tiles.of(unit_TNK, k_SMH.shape[1], len(units_UB))
    if not len(tiles.pair_XQ):
        return []
    out_PW = out_TNW.new_zeros(T * N * K + 1, W)
    lse_P = torch.full((T * N * K + 1,), -torch.inf, dtype=lse_TN.dtype, device=lse_TN.device)
    maxima = []
    q_ZH = _with_padding(q_TNH)
    for part in tiles.chunks(units_UB.shape[1], k_SMH.shape[2] + W):
        q, k, v = _tile_operands(q_ZH, k_SMH, v_SMW, part, K, units_UB)
        out, lse = _forward(q, k, v, False, scale)
        out_PW[part.pair_XQ] = out[:, 0, :, :W]
        lse_P[part.pair_XQ] = lse[:, 0]
        if stats.max_logit == "exact":
            best_XQ = torch.bmm(q[:, 0].float(), k[:, 0].float().transpose(1, 2)).amax(-1) * scale
            best_XQ.masked_fill_(part.pair_XQ == T * N * K, -torch.inf)
            head_V, best_V = (part.pair_XQ // K % N).flatten(), best_XQ.flatten()
            best_N = best_XQ.new_full((N,), -torch.inf)
            maxima.append(best_N.scatter_reduce_(0, head_V, best_V, "amax"))
    lse_TNZ = torch.cat((lse_TN[..., None], lse_P[:-1].view(T, N, K)), -1)
    total_TN = lse_TNZ.logsumexp(-1)
    share_TNZ = (lse_TNZ - total_TN[..., None]).exp()
    chosen_TNKW = out_PW[:-1].view(T, N, K, W).to(share_TNZ.dtype)
    joined = torch.einsum("tnk,tnkw->tnw", share_TNZ[..., 1:], chosen_TNKW)
    joined += share_TNZ[..., :1] * out_TNW
    out_TNW.copy_(joined)
    lse_TN.copy_(total_TN)
    return maxima


class _OfRows(NamedTuple):
    """What the backward pass knows of rows."""

    q_TNH: Tensor
    out_TNW: Tensor
    dout_TNW: Tensor
    lse_TN: Tensor
    unit_TNK: Tensor


def _add_chosen_gradients(
    rows: _OfRows,
    k_SMH: Tensor,
    v_SMW: Tensor,
    units_UB: Tensor,
    scale: float,
    dk_SMH: Tensor,
    dv_SMW: Tensor,
) -> Tensor:
    """Gradient of queries over chosen blocks; those of keys and values are added, in place."""
    q_TNH, out_TNW, dout_TNW, lse_TN, unit_TNK = rows
    (T, N, K), (U, B), M = unit_TNK.shape, units_UB.shape, k_SMH.shape[1]
    tiles = _Tiles.of(unit_TNK, M, U)
    dq_PH = dk_SMH.new_zeros(T * N * K + 1, q_TNH.shape[2])
    H, W = q_TNH.shape[2], v_SMW.shape[2]
    q_ZH, out_ZW, dout_ZW = (_with_padding(x) for x in (q_TNH, out_TNW, dout_TNW))
    lse_Z = torch.cat((lse_TN.reshape(-1), lse_TN.new_zeros(1)))
    dk_ZBH, dv_ZBW = dk_SMH.new_zeros(M * U, B, H), dv_SMW.new_zeros(M * U, B, W)
    for part in tiles.chunks(B, H + W):
        operands = _tile_operands(q_ZH, k_SMH, v_SMW, part, K, units_UB)
        row_XQ = part.pair_XQ // K
        width = operands[0].shape[3]
        out, dout = (widened(x[row_XQ], width)[:, None] for x in (out_ZW, dout_ZW))
        dq, dk, dv = _backward(dout, *operands, out, lse_Z[row_XQ][:, None], False, scale)
        dq_PH[part.pair_XQ] = dq[:, 0, :, :H].to(dq_PH.dtype)
        bin_X = part.head_X * U + part.unit_X
        dk_ZBH.index_add_(0, bin_X, dk[:, 0, :, :H].to(dk_ZBH.dtype))
        dv_ZBW.index_add_(0, bin_X, dv[:, 0, :, :W].to(dv_ZBW.dtype))
    for grads, of_bins in ((dk_SMH, dk_ZBH), (dv_SMW, dv_ZBW)):
        of_keys = of_bins.view(M, U * B, of_bins.shape[2]).transpose(0, 1)
        grads.index_add_(0, units_UB.reshape(-1), of_keys)
    return dq_PH[:-1].view(T, N, K, H).sum(2)


def _square_operands(
    q_TNH: Tensor, k_SMH: Tensor, v_SMW: Tensor, square: _Squares
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``[C, N, L, H]``, of one width and head count."""
    group = q_TNH.shape[1] // k_SMH.shape[1]
    width = max(q_TNH.shape[2], v_SMW.shape[2])
    q, k, v = (widened(x, width) for x in (q_TNH, k_SMH, v_SMW))
    k, v = (_square(x, square.k_CL) for x in (k, v))
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return _square(q, square.q_CL), k, v


def _square(x_TNH: Tensor, rows_CL: Tensor) -> Tensor:
    return x_TNH[rows_CL].transpose(1, 2)


def _put_rows(to_TN: Tensor, square: _Squares, from_CNL: Tensor) -> None:
    """Puts the places that are rows of the step back; both may have a width."""
    if to_TN.is_meta:
        return
    rows = from_CNL.transpose(1, 2)[square.is_row_CL].to(to_TN.dtype)
    to_TN[square.q_CL[square.is_row_CL]] = rows[..., : to_TN.shape[2]] if to_TN.dim() > 2 else rows


def _with_padding(x_TNH: Tensor) -> Tensor:
    """Rows by row and head, and behind them one of zeros."""
    x_ZH = x_TNH.reshape(-1, x_TNH.shape[2])
    return torch.cat((x_ZH, x_ZH.new_zeros(1, x_ZH.shape[1])))


def _tile_operands(
    q_ZH: Tensor, k_SMH: Tensor, v_SMW: Tensor, tiles: _Tiles, K: int, units_UB: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries ``[X, 1, Q, H]``, keys and values ``[X, 1, B, H]``, of one width."""
    width = max(q_ZH.shape[1], v_SMW.shape[2])
    rows_XB, head_X1 = units_UB[tiles.unit_X], tiles.head_X[:, None]
    q_XQH = q_ZH[tiles.pair_XQ // K]
    k_XBH, v_XBW = (x[rows_XB, head_X1] for x in (k_SMH, v_SMW))
    q, k, v = (widened(x, width)[:, None] for x in (q_XQH, k_XBH, v_XBW))
    return q, k, v


def _accurate(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _forward(
    q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of batches of heads, ``[X, N, Q, H]`` over ``[X, N, B, H]``."""
    if _has_flash(q):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, is_causal, scale=scale
        )
    logits = _logits(q, k, is_causal, scale)
    lse = logits.logsumexp(-1)
    return torch.matmul((logits - lse[..., None]).exp().to(v.dtype), v), lse


def _backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a part, of whose softmax ``out`` and ``lse`` may hold more than the part."""
    if _has_flash(q):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            dout, q, k, v, out, lse, 0.0, is_causal, scale=scale
        )
    weights = (_logits(q, k, is_causal, scale) - lse[..., None]).exp()
    dv = torch.matmul(weights.transpose(-1, -2).to(dout.dtype), dout)
    delta = (dout.to(lse.dtype) * out).sum(-1, keepdim=True)
    dlogits = weights * (torch.matmul(dout, v.transpose(-1, -2)) - delta) * scale
    dlogits = dlogits.to(q.dtype)
    return torch.matmul(dlogits, k), torch.matmul(dlogits.transpose(-1, -2), q), dv


def _logits(q: Tensor, k: Tensor, is_causal: bool, scale: float) -> Tensor:
    logits = torch.matmul(q, k.transpose(-1, -2)).to(_accurate(q.dtype)) * scale
    if is_causal:
        future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).triu_(1)
        logits = logits.masked_fill(future, -torch.inf)
    return logits


def _has_flash(q: Tensor) -> bool:
    """Whether torch has a flash kernel for the device whose two passes can be called apart."""
    return q.device.type == "cpu"
