"""Causal attention over packed documents: the fast path of training.

In bfloat16 on the CPU by a kernel of our own (``causal_kernel.py``), where there is one; else on
torch's flash kernels, as follows.

Documents of about one length are computed in one call and no mask is built. Lengths are rounded up:
the kernel multiplies by oneDNN, which compiles code for every new length. The kernel returns the
log-sum-exp, which bounds each head's largest logit from above; the exact maximum costs one more
product of queries and keys, by blocks and without gradient.

Letters: ``C`` documents of one length, ``L`` that length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.ops import causal_kernel
from selenite.ops.attention_context import Attended, AttentionContext
from selenite.ops.permute import repeat_rows, sum_rows

SUPPORTS: frozenset[str] = frozenset()

_LENGTH_MULTIPLE = 64
_QUERY_BLOCK = 128
# Float32 logits held at once by the exact maximum: 4 MB, so that the pass over them stays in cache.
_BLOCK_ELEMENTS = 1 << 20


def attend_causal(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for a context without pages or optional fields."""
    if causal_kernel.serves(q_TNH, v_TMW):
        return causal_kernel.attend_by_kernel(q_TNH, k_TMH, v_TMW, context, scale)
    N, W = q_TNH.shape[1], v_TMW.shape[2]
    order = order_by_length(context.segments, q_TNH.device)
    arranged = [q_TNH, k_TMH, v_TMW]
    if not order.is_as_given:
        arranged = [repeat_rows(x, order.row_X, order.place_T1) for x in arranged]
    rows = [count * length for length, count in order.lengths.items()]
    by_length = (x.split(rows) for x in arranged)
    outs, lses, maxima = [], [], []
    for length, q, k, v in zip(order.lengths, *by_length, strict=True):
        q_CNLH, k_CNLH, v_CNLH = _as_documents(q, k, v, length)
        out_CNLH, lse_CNL = _flash(q_CNLH, k_CNLH, v_CNLH, scale)
        outs.append(out_CNLH[..., :W].transpose(1, 2).reshape(-1, N, W))
        lses.append(lse_CNL.detach().transpose(1, 2).reshape(-1, N))
        if context.stats.max_logit == "exact":
            maxima.append(max_logit(q_CNLH.detach(), k_CNLH.detach(), scale))
    # With one length, as in training on full sequences, there is nothing to join.
    out_TNW, lse_TN = (x[0] if len(x) == 1 else torch.cat(x) for x in (outs, lses))
    if not order.is_as_given:
        out_TNW = sum_rows(out_TNW, order.row_X, order.place_T1, order.padding_Z)
        lse_TN = lse_TN[order.place_T1[:, 0]]
    statistic = None
    if context.stats.max_logit is not None:
        exact = context.stats.max_logit == "exact"
        statistic = torch.stack(maxima).amax(0) if exact else lse_TN.amax(0)
    return Attended(out_TNW, statistic, lse_TN if context.stats.lse else None)


@dataclass(frozen=True)
class _Order:
    """Rows rearranged so that documents of one rounded length lie together.

    A document's padding repeats its last row. The rows before it do not see it, and its logits are
    those of the last row, so that the exact maximum does not change either.
    """

    lengths: dict[int, int]  # rounded length -> how many documents have it
    row_X: Tensor  # int64: the row of the step in each place
    place_T1: Tensor  # int64: the place of each row of the step
    padding_Z: Tensor  # int64: places that hold padding
    is_as_given: bool  # every row is in its own place, and there is no padding


@lru_cache(maxsize=64)
def order_by_length(segments: tuple[tuple[int, int, int], ...], device: torch.device) -> _Order:
    """The order for all layers of a step."""
    by_length: dict[int, list[tuple[int, int]]] = {}
    for start, stop, first_position in segments:
        assert first_position == 0, (start, first_position)
        length = -(-(stop - start) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        by_length.setdefault(length, []).append((start, stop))
    rows, is_row = [], []
    for length, documents in by_length.items():
        first_C1, last_C1 = (torch.tensor(ends)[:, None] for ends in zip(*documents, strict=True))
        row_CL = first_C1 + torch.arange(length)
        rows.append(row_CL.minimum(last_C1 - 1).reshape(-1))
        is_row.append((row_CL < last_C1).reshape(-1))
    row_X, is_row_X = torch.cat(rows), torch.cat(is_row)  # on the CPU: where the values are known
    place = is_row_X.nonzero()[:, 0]
    place_T1 = torch.empty_like(place)
    place_T1[row_X[place]] = place
    padding_Z = (~is_row_X).nonzero()[:, 0]
    counts = {length: len(documents) for length, documents in by_length.items()}
    is_as_given = torch.equal(row_X, torch.arange(len(place)))
    row_X, place_T1, padding_Z = (x.to(device) for x in (row_X, place_T1[:, None], padding_Z))
    return _Order(counts, row_X, place_T1, padding_Z, is_as_given)


def _as_documents(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as ``[C, N, L, H]``: the CPU kernel wants one head count and width.

    Zeros beside queries and keys add nothing to a logit; zeros beside the values add columns of
    zeros to the output, cut off afterwards.
    """
    group = q_TNH.shape[1] // k_TMH.shape[1]
    width = max(q_TNH.shape[2], v_TMW.shape[2])
    q, k, v = (
        widened(x, width).unflatten(0, (-1, length)).transpose(1, 2) for x in (q_TNH, k_TMH, v_TMW)
    )
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    return q, k, v


def widened(x_TNH: Tensor, width: int) -> Tensor:
    """With zeros up to ``width``; ``F.pad`` would copy what is wide enough."""
    return x_TNH if x_TNH.shape[2] == width else F.pad(x_TNH, (0, width - x_TNH.shape[2]))


def _flash(q_CNLH: Tensor, k_CNLH: Tensor, v_CNLH: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output and float32 log-sum-exp ``[C, N, L]`` of torch's flash kernel for the device."""
    if q_CNLH.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_CNLH, k_CNLH, v_CNLH, 0.0, True, scale=scale
        )
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
        q_CNLH, k_CNLH, v_CNLH, 0.0, True, scale=scale
    )
    return out, lse


@torch.no_grad()
def max_logit(q_CNLH: Tensor, k_CNLH: Tensor, scale: float) -> Tensor:
    """Exact maximum of the causal softmax input of each head, float32 ``[N]``.

    Blocks of queries against the keys up to the block's end, a running maximum over blocks; the
    products are float32 whatever the input (bf16 logits of size 50 would be off by 0.1).
    """
    C, N, L, H = q_CNLH.shape
    q_XLH = (q_CNLH.float() * scale).reshape(C * N, L, H)
    k_XHL = k_CNLH.float().reshape(C * N, L, H).transpose(1, 2)
    best_X = torch.full((C * N,), -torch.inf, device=q_XLH.device)
    for start in range(0, L, _QUERY_BLOCK):
        stop = min(start + _QUERY_BLOCK, L)
        future = torch.ones(stop - start, stop - start, dtype=torch.bool, device=q_XLH.device)
        step = max(1, _BLOCK_ELEMENTS // ((stop - start) * stop))
        for x in range(0, C * N, step):
            logits = torch.bmm(q_XLH[x : x + step, start:stop], k_XHL[x : x + step, :, :stop])
            logits[..., start:].masked_fill_(future.triu(1), -torch.inf)
            block = best_X[x : x + step]
            torch.maximum(block, logits.amax((1, 2)), out=block)
    return best_X.view(C, N).amax(0)
