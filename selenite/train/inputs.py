"""From a packed micro-batch (numpy, ``data/packing.py``) to what the model takes.

Letters: ``T`` packed tokens, ``K`` those of them that predict a target.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from selenite.data.packing import MicroBatch
from selenite.ops.attention_context import AttentionContext, StatsRequest
from selenite.ops.logprobs import token_logprobs


@dataclass(frozen=True)
class Inputs:
    """One micro-batch on the model's device."""

    tokens_T: Tensor  # int64
    targets_T: Tensor  # int64; IGNORED (-1) is not trained on
    trained_K: Tensor | None  # rows with a target, where most have none; None: look at all
    context: AttentionContext  # a piece sees itself, and the one that it goes on from


def to_inputs(
    micro_batch: MicroBatch, device: torch.device | str, stats: StatsRequest | None = None
) -> Inputs:
    """Moves a micro-batch to ``device``; its pieces become the context's sequences."""
    pieces = micro_batch.document_T
    starts = np.flatnonzero(np.diff(pieces, prepend=-1))
    stops = np.append(starts[1:], len(pieces))
    firsts = micro_batch.positions_T[starts]
    segments = tuple(zip(starts.tolist(), stops.tolist(), firsts.tolist(), strict=True))
    context = AttentionContext(
        positions_T=torch.from_numpy(micro_batch.positions_T).to(device),
        sequence_T=torch.from_numpy(pieces.astype(np.int64)).to(device),
        segments=segments,
        shared_prefix=_prefixes(firsts) if firsts.any() else None,
        stats=stats or StatsRequest(),
    )
    rows = np.flatnonzero(micro_batch.targets_T >= 0)
    few = 2 * len(rows) < len(micro_batch.targets_T)
    return Inputs(
        torch.from_numpy(micro_batch.tokens_T).to(device),
        torch.from_numpy(micro_batch.targets_T).to(device),
        torch.from_numpy(rows).to(device) if few else None,
        context,
    )


def _prefixes(firsts: np.ndarray) -> tuple[int, ...]:
    """Of each piece the one that it goes on from, the last that begins at 0; -1: of none."""
    begins = np.flatnonzero(firsts == 0)
    last = begins[np.searchsorted(begins, np.arange(len(firsts)), side="right") - 1]
    return tuple(np.where(firsts == 0, -1, last).tolist())


def sum_logprobs(hidden_TD: Tensor, head_VD: Tensor, inputs: Inputs) -> Tensor:
    """Sum of the targets' log-probabilities, a scalar. Where most rows have no target, as in
    conversations, no logits are computed for those."""
    targets_T = inputs.targets_T
    if inputs.trained_K is not None:
        hidden_TD, targets_T = hidden_TD[inputs.trained_K], targets_T[inputs.trained_K]
    return token_logprobs(hidden_TD, head_VD, targets_T).sum(dtype=torch.float64)


def num_targets(micro_batch: MicroBatch) -> int:
    """Tokens of a micro-batch that are trained on."""
    return int((micro_batch.targets_T >= 0).sum())
