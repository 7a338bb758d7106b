"""Block-scaled fp8 weights, as Kimi K2 and DeepSeek-V3 are published.

A matrix is e4m3 with one float32 scale for each block of 128 x 128; the last blocks of a row or
column may be smaller.

Letters: ``A`` rows, ``B`` columns, ``X`` and ``Y`` blocks of rows and of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from selenite.errors import CheckpointError

BLOCK = 128


def dequantize_blocks(weight_AB: Tensor, scale_XY: Tensor, name: str = "weight") -> Tensor:
    """Float32 ``weight * scale`` of each block; raises ``CheckpointError`` for a scale of the
    wrong shape."""
    blocks = tuple(-(-size // BLOCK) for size in weight_AB.shape)
    if scale_XY.shape != blocks:
        raise CheckpointError(
            f"{name} {tuple(weight_AB.shape)} has scales {tuple(scale_XY.shape)} but "
            f"{BLOCK} x {BLOCK} blocks make {blocks}"
        )
    rows, columns = weight_AB.shape
    scale_AB = scale_XY.float().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    return weight_AB.float() * scale_AB[:rows, :columns]


def quantize_blocks(weight_AB: Tensor) -> tuple[Tensor, Tensor]:
    """The e4m3 weight and float32 scales ``[X, Y]`` whose product is nearest to the weight."""
    rows, columns = weight_AB.shape
    padded = torch.nn.functional.pad(weight_AB.float(), (0, -columns % BLOCK, 0, -rows % BLOCK))
    blocks = padded.unflatten(0, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    largest_XY = blocks.abs().amax((1, 3))
    scale_XY = (largest_XY / torch.finfo(torch.float8_e4m3fn).max).clamp(min=1e-12)
    scaled = blocks / scale_XY[:, None, :, None]
    quantized = scaled.flatten(2).flatten(0, 1)[:rows, :columns].to(torch.float8_e4m3fn)
    return quantized, scale_XY
