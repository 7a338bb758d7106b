"""Rotary position embedding, with YaRN's frequency scaling (arXiv 2104.09864, 2309.00071).

The table is computed once in float32 and indexed by position, so that a position's angles are
the same bits wherever they are used. On the CPU a kernel of our own rotates (``csrc/rope.cpp``) in
bfloat16, and in float32 without gradient.

Letters: ``C`` rotary pairs (half the rotary width), ``J`` positions in the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from selenite.ops import native


@dataclass(frozen=True)
class RopeTable:
    """Cosines and sines of every position; written once by the model, read by attention."""

    cos_JC: Tensor  # float32
    sin_JC: Tensor  # float32
    interleaved: bool  # pairs are (2i, 2i+1); else (i, i + C)

    def rotate(self, x_TNH: Tensor, positions_T: Tensor, copied: int = 0) -> Tensor:
        """Rotates each head of each row by its position, but for the first ``copied`` values of
        the head; same shape and dtype as ``x``."""
        if native.serves_inference(x_TNH):
            return _RotateByKernel.apply(x_TNH, positions_T, self, copied)
        if copied == 0:
            return self._rotate(x_TNH, positions_T)
        plain, rotary = x_TNH.split((copied, x_TNH.shape[2] - copied), -1)
        return torch.cat((plain, self._rotate(rotary, positions_T)), -1)

    def _rotate(self, x_TNH: Tensor, positions_T: Tensor) -> Tensor:
        cos_T1C = self.cos_JC[positions_T][:, None]
        sin_T1C = self.sin_JC[positions_T][:, None]
        x = x_TNH.float()
        if self.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
        else:
            a, b = x.chunk(2, dim=-1)
        rotated_a, rotated_b = a * cos_T1C - b * sin_T1C, b * cos_T1C + a * sin_T1C
        if self.interleaved:
            out = torch.stack((rotated_a, rotated_b), dim=-1).flatten(-2)
        else:
            out = torch.cat((rotated_a, rotated_b), dim=-1)
        return out.to(x_TNH.dtype)


class _RotateByKernel(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_TNH: Tensor, positions_T: Tensor, table: RopeTable, copied: int
    ) -> Tensor:
        # In inference mode the engine has checked its requests; a look would cost as much again.
        is_trusted = torch.is_inference_mode_enabled() or positions_T.device.type == "meta"
        if not is_trusted and len(positions_T):
            first, last = positions_T.aminmax()
            known = len(table.cos_JC)
            assert first >= 0, first
            assert last < known, (last, known)
        ctx.how = positions_T, table, copied
        return _turned(x_TNH, 1.0, *ctx.how)

    @staticmethod
    def backward(ctx: Any, grad_TNH: Tensor) -> tuple[Tensor, None, None, None]:
        return _turned(grad_TNH, -1.0, *ctx.how), None, None, None


def _turned(
    x_TNH: Tensor, turn: float, positions_T: Tensor, table: RopeTable, copied: int
) -> Tensor:
    """Rotated by ``turn`` times the angles."""
    x_TNH = x_TNH if x_TNH.stride(2) == 1 else x_TNH.contiguous()
    T, N, H = x_TNH.shape
    pairs = table.cos_JC.shape[1]
    assert copied + 2 * pairs == H, (H, copied, pairs)
    out_TNH = x_TNH.new_empty(T, N, H)
    native.call(
        native.of_dtype("rope_rotate", x_TNH),
        *(x_TNH, x_TNH.stride(0), x_TNH.stride(1), positions_T.contiguous()),
        *(table.cos_JC, table.sin_JC, out_TNH, turn, int(table.interleaved), T, N, copied, pairs),
    )
    return out_TNH


def inverse_frequencies(width: int, theta: float) -> Tensor:
    """``theta ** (-2c / width)`` for each rotary pair ``c``; float32 ``[C]``."""
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float32) / width)


def yarn_inverse_frequencies(
    width: int,
    theta: float,
    factor: float,
    original_max_positions: int,
    beta_fast: float,
    beta_slow: float,
) -> Tensor:
    """YaRN: fast pairs keep their frequency, slow ones are divided by ``factor``; ``[C]``.

    The two are blended over the pairs that turn between ``beta_slow`` and ``beta_fast`` times
    within the original context. With both betas equal, as in Kimi K2, the blend is a step.
    """

    def pair_with_turns(turns: float) -> float:
        length = original_max_positions / (turns * 2 * math.pi)
        return width * math.log(length) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(beta_fast)), 0)
    high = min(math.ceil(pair_with_turns(beta_slow)), width - 1)
    pairs_C = torch.arange(width // 2, dtype=torch.float32)
    ramp_C = ((pairs_C - low) / max(high - low, 0.001)).clamp(0, 1)
    base_C = inverse_frequencies(width, theta)
    return base_C / factor * ramp_C + base_C * (1 - ramp_C)


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention multiplier ``0.1 * mscale * ln(factor) + 1`` (1 without extension)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def rope_table(
    inverse_C: Tensor, num_positions: int, interleaved: bool, scale: float = 1.0
) -> RopeTable:
    """The table for positions below ``num_positions``; ``scale`` multiplies cosines and sines."""
    angles_JC = torch.arange(num_positions, dtype=torch.float32)[:, None] * inverse_C[None]
    return RopeTable(angles_JC.cos() * scale, angles_JC.sin() * scale, interleaved)
