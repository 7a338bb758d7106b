"""Drawing tokens: a counter-based generator, and the inverse of the cumulative distribution.

The random number of a token is a function of (seed, sample index, position, purpose) alone, so a
request gives the same tokens alone, in a batch, or after it was interrupted.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from selenite.errors import NonFiniteError
from selenite.types import SamplingParams


class Purpose(IntEnum):
    """What a random number is for; each has a stream of its own."""

    SAMPLE = 0


def uniform(seed: int, sample: int, position: int, purpose: Purpose = Purpose.SAMPLE) -> float:
    """A number in [0, 1) from Philox-4x64 with key ``seed`` and the rest as its counter."""
    generator = np.random.Philox(key=seed, counter=[0, position, sample, int(purpose)])
    return float(np.random.Generator(generator).random())


def sampling_logits(logits_V: Tensor, params: SamplingParams) -> Tensor:
    """Float32 logits after temperature, top-k, min-p and top-p; excluded tokens are -inf.

    The filters apply in that order, each to what the one before left. Among equal logits at the
    border of top-k or top-p the lower token id stays. ``temperature`` must be above 0.
    """
    logits = logits_V.float() / params.temperature
    if 0 < params.top_k < len(logits):
        order = logits.sort(descending=True, stable=True).indices
        logits = logits.index_fill(0, order[params.top_k :], -torch.inf)
    if params.min_p > 0:
        floor = logits.max() + math.log(params.min_p)
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if params.top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        mass_before = ordered.softmax(0).double().cumsum(0).roll(1)
        mass_before[0] = 0.0
        logits = logits.index_fill(0, order[mass_before >= params.top_p], -torch.inf)
    return logits


def sample_token(logits_V: Tensor, params: SamplingParams, sample: int, position: int) -> int:
    """The token at ``position`` of sample number ``sample``; greedy at temperature 0.

    Greedy takes the lowest id among equal logits.

    Raises:
        NonFiniteError: the largest logit is NaN or infinite, so there is no distribution.
    """
    largest = float(logits_V.max())
    if not math.isfinite(largest):
        raise NonFiniteError(
            f"the largest logit at position {position} is {largest}: the model's weights or "
            "activations are not finite; go back to a checkpoint from before they diverged"
        )
    if params.temperature == 0:
        return int(logits_V.float().argmax())
    weights_V = sampling_logits(logits_V, params).softmax(0).double().numpy(force=True)
    cumulative = weights_V.cumsum()
    threshold = uniform(params.seed, sample, position) * cumulative[-1]
    return int(np.searchsorted(cumulative, threshold, side="right"))
