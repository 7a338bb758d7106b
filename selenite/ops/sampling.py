"""Drawing tokens: a counter-based generator, and the inverse of the cumulative distribution.

The random number of a token is a function of (seed, sample index, position, purpose) alone, so a
request gives the same tokens alone, in a batch, or after it was interrupted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
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


def penalized_logits(
    logits_V: Tensor, params: SamplingParams, prompt: Sequence[int], completion: Sequence[int]
) -> Tensor:
    """Float32 logits after penalties and biases; ``logits`` as it is where there are none.

    Repetition first, then frequency and presence, then ``logit_bias``.
    """
    has_penalties = params.presence_penalty != 0 or params.frequency_penalty != 0
    if params.repetition_penalty == 1 and not params.logit_bias and not has_penalties:
        return logits_V
    logits = logits_V.float().clone()
    if params.repetition_penalty != 1:
        seen = torch.tensor(sorted({*prompt, *completion}), device=logits.device)
        values = logits[seen]
        factor = params.repetition_penalty
        logits[seen] = torch.where(values > 0, values / factor, values * factor)
    if has_penalties and completion:
        counts = Counter(completion)
        tokens = torch.tensor(list(counts), device=logits.device)
        times = torch.tensor(list(counts.values()), dtype=torch.float32, device=logits.device)
        logits[tokens] -= params.presence_penalty + params.frequency_penalty * times
    biases = [(token, bias) for token, bias in params.logit_bias if token < len(logits)]
    if biases:  # at once: there can be a thousand, in every row of a step
        index_B = torch.tensor([token for token, _ in biases], device=logits.device)
        bias_B = torch.tensor([bias for _, bias in biases], device=logits.device)
        logits.index_add_(0, index_B, bias_B)
    return logits


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

    Raises what ``draw_token`` raises.
    """
    return draw_token(logits_V, params, sample, position)[0]


def draw_token(
    logits_V: Tensor, params: SamplingParams, sample: int, position: int
) -> tuple[int, Tensor]:
    """A token, and the logits of the distribution that it was drawn from.

    Greedy takes the lowest id among equal logits, and filters nothing.

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
        return int(logits_V.float().argmax()), logits_V
    filtered_V = sampling_logits(logits_V, params)
    cumulative = filtered_V.softmax(0).double().numpy(force=True).cumsum()
    threshold = uniform(params.seed, sample, position) * cumulative[-1]
    return int(np.searchsorted(cumulative, threshold, side="right")), filtered_V
