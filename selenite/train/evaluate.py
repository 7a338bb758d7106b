"""Loss and bits per byte on fixed held-out tokens.

Bits per byte divides by the UTF-8 bytes of the text, not by tokens, so models with different
tokenizers can be compared. The same tokens are read at every call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from selenite.data.packing import MicroBatch
from selenite.errors import DataError
from selenite.model.transformer import Transformer
from selenite.train.inputs import num_targets, sum_logprobs, to_inputs


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text."""

    loss: float  # nats per predicted token
    bits_per_byte: float
    tokens: int  # predicted
    bytes: int  # UTF-8 bytes that they stand for


@torch.no_grad()
def evaluate(model: Transformer, micro_batches: Iterable[MicroBatch]) -> Evaluation:
    """Evaluates ``model`` on its own device, in its compute dtype; sums are in float64.

    Raises ``DataError`` if there is nothing to predict.
    """
    device = model.embed.weight.device
    nats, tokens, num_bytes = 0.0, 0, 0
    for micro_batch in micro_batches:
        inputs = to_inputs(micro_batch, device)
        output = model(inputs.tokens_T, inputs.context.positions_T, inputs.context)
        nats -= float(sum_logprobs(output.hidden_TD, model.head_weight, inputs))
        tokens += num_targets(micro_batch)
        num_bytes += micro_batch.num_bytes
    if tokens == 0 or num_bytes == 0:
        raise DataError(
            "there is no held-out text to evaluate on; hold out more with "
            "data.split.file_fraction, or raise train.eval_tokens"
        )
    return Evaluation(nats / tokens, bits_per_byte(nats, num_bytes), tokens, num_bytes)


def bits_per_byte(nats: float, num_bytes: int) -> float:
    """The total negative log-likelihood ``nats`` of a text of ``num_bytes``, in bits per byte."""
    return nats / (math.log(2) * num_bytes)
