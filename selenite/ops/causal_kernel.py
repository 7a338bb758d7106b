"""Causal attention over packed documents in bfloat16 on the CPU, by a kernel of our own.

``csrc/causal_attention.cpp`` reads rows as they lie, whatever the documents' lengths, the number of
key/value heads and the width of values, and reports the exact largest logit of each head for
nothing. torch's kernel wants copies of one length, one head count and one width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selenite.ops import native
from selenite.ops.attention_context import Attended, AttentionContext, StatsRequest

Segments = tuple[tuple[int, int, int], ...]


def serves(q_TNH: Tensor, v_TMW: Tensor) -> bool:
    """Whether the kernel computes these: bfloat16 of even widths, on a CPU with avx512_bf16."""
    return (
        q_TNH.shape[2] % 2 == v_TMW.shape[2] % 2 == 0
        and native.instruction_set().value == "avx512_bf16"
        and native.serves(q_TNH)
    )


def attend_by_kernel(
    q_TNH: Tensor, k_TMH: Tensor, v_TMW: Tensor, context: AttentionContext, scale: float
) -> Attended:
    """``attend_reference`` for what ``serves``, without pages; of the optional fields it obeys
    ``shared_prefix``."""
    segments = context.segments
    prefixes = context.shared_prefix or (-1,) * len(segments)
    for (_, _, first), prefix in zip(segments, prefixes, strict=True):
        start, stop, begins = segments[prefix] if prefix >= 0 else (0, 0, 0)
        assert (first, begins) == (stop - start, 0), (segments, prefixes)
    out_TNW, lse_NT, exact_N = _Causal.apply(q_TNH, k_TMH, v_TMW, segments, prefixes, scale)
    stats = context.stats
    return Attended(out_TNW, _statistic(stats, exact_N, lse_NT), lse_NT.T if stats.lse else None)


def _statistic(stats: StatsRequest, exact_N: Tensor, lse_NT: Tensor) -> Tensor | None:
    if stats.max_logit is None:
        return None
    return exact_N if stats.max_logit == "exact" else lse_NT.amax(1)


class _Causal(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_TNH: Tensor,
        k_TMH: Tensor,
        v_TMW: Tensor,
        segments: Segments,
        prefixes: tuple[int, ...],
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        T, N, _ = q_TNH.shape
        W = v_TMW.shape[2]
        q_TNH, k_TMH, v_TMW = (
            x if x.stride(2) == 1 else x.contiguous() for x in (q_TNH, k_TMH, v_TMW)
        )
        out_TNW = q_TNH.new_empty(T, N, W)
        lse_NT = q_TNH.new_empty(N, T, dtype=torch.float32)
        exact_N = torch.full((N,), -torch.inf, device=q_TNH.device)
        ctx.save_for_backward(q_TNH, k_TMH, v_TMW, out_TNW, lse_NT)
        ctx.segments, ctx.prefixes, ctx.scale = segments, prefixes, scale
        ctx.mark_non_differentiable(lse_NT, exact_N)
        given = _arguments(q_TNH, k_TMH, v_TMW, segments, prefixes, scale)
        native.call("causal_attention_forward", *given, out_TNW, lse_NT, exact_N)
        return out_TNW, lse_NT, exact_N

    @staticmethod
    def backward(
        ctx: Any, dout_TNW: Tensor, _lse: None, _exact: None
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q_TNH, k_TMH, v_TMW, out_TNW, lse_NT = ctx.saved_tensors
        dout_TNW = dout_TNW.contiguous()
        grads = [x.new_empty(x.shape) for x in (q_TNH, k_TMH, v_TMW)]
        given = _arguments(q_TNH, k_TMH, v_TMW, ctx.segments, ctx.prefixes, ctx.scale)
        native.call("causal_attention_backward", *given, out_TNW, dout_TNW, lse_NT, *grads)
        return *grads, None, None, None


def _arguments(
    q_TNH: Tensor,
    k_TMH: Tensor,
    v_TMW: Tensor,
    segments: Segments,
    prefixes: tuple[int, ...],
    scale: float,
) -> tuple[Any, ...]:
    """What both kernels begin with."""
    operands = (q_TNH, k_TMH, v_TMW)
    T, N, H = q_TNH.shape
    strides = native.integers(n for x in operands for n in x.stride()[:2])
    bounds = native.integers(n for start, stop, _ in segments for n in (start, stop))
    dims = native.integers((T, N, k_TMH.shape[1], H, v_TMW.shape[2]))
    return (*operands, strides, bounds, native.integers(prefixes), len(segments), dims, scale)
