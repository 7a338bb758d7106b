"""From a packed micro-batch (numpy, ``data/packing.py``) to what the model takes.

Letters: ``T`` packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selenite.data.packing import MicroBatch
from selenite.ops.attention_context import AttentionContext, StatsRequest


@dataclass(frozen=True)
class Inputs:
    """One micro-batch on the model's device."""

    tokens_T: Tensor  # int64
    targets_T: Tensor  # int64; IGNORED (-1) is not trained on
    context: AttentionContext  # each piece of a document sees itself alone


def to_inputs(
    micro_batch: MicroBatch, device: torch.device | str, stats: StatsRequest | None = None
) -> Inputs:
    """Moves a micro-batch to ``device``; its pieces become the context's sequences."""
    pieces = micro_batch.document_T
    starts = np.flatnonzero(np.diff(pieces, prepend=-1))
    stops = np.append(starts[1:], len(pieces))
    segments = zip(starts.tolist(), stops.tolist(), strict=True)
    context = AttentionContext(
        positions_T=torch.from_numpy(micro_batch.positions_T).to(device),
        sequence_T=torch.from_numpy(pieces.astype(np.int64)).to(device),
        segments=tuple((start, stop, 0) for start, stop in segments),
        stats=stats or StatsRequest(),
    )
    return Inputs(
        torch.from_numpy(micro_batch.tokens_T).to(device),
        torch.from_numpy(micro_batch.targets_T).to(device),
        context,
    )


def num_targets(micro_batch: MicroBatch) -> int:
    """Tokens of a micro-batch that are trained on."""
    return int((micro_batch.targets_T >= 0).sum())
