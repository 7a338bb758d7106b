"""Drawing tokens: a counter-based generator, and the inverse of the cumulative distribution.

The random number of a token is a function of (seed, sample index, position, purpose) alone, so a
request gives the same tokens alone, in a batch, or after it was interrupted.

``draw_rows`` is the way in for the engine, ``sample_token`` for the decoder. Both use a kernel
(``csrc/sample_rows.cpp``) that sorts nothing; ``draw_token`` is its reference, and serves on other
devices and in batch-invariant mode.
"""

from __future__ import annotations

import ctypes
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from selenite.errors import ConfigError, NonFiniteError
from selenite.ops import native
from selenite.ops.logprobs import log_softmax
from selenite.types import SamplingParams


class Purpose(IntEnum):
    """What a random number is for; each has a stream of its own."""

    SAMPLE = 0


_64_BITS = 2**64 - 1


def uniform(seed: int, sample: int, position: int, purpose: Purpose = Purpose.SAMPLE) -> float:
    """A number in [0, 1) from Philox-4x64 with key ``seed`` and the rest as its counter.

    It is numpy's first number from ``Philox(key=seed, counter=[0, position, sample, purpose])``,
    whose making takes longer than drawing a token from a row.
    """
    a, b, c, d = 1, position, sample, int(purpose)
    key, other_key = seed, 0
    for _ in range(10):
        product, other = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b = other >> 64 ^ b ^ key, other & _64_BITS
        c, d = product >> 64 ^ d ^ other_key, product & _64_BITS
        key = key + 0x9E3779B97F4A7C15 & _64_BITS
        other_key = other_key + 0xBB67AE8584CAA73B & _64_BITS
    return (a >> 11) * 2.0**-53


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
    if params.logit_bias:  # at once: there can be a thousand, in every row of a step
        index_B = torch.tensor([token for token, _ in params.logit_bias], device=logits.device)
        bias_B = torch.tensor([bias for _, bias in params.logit_bias], device=logits.device)
        logits.index_add_(0, index_B, bias_B)
    return logits


def check_token_ids(params: SamplingParams, vocab_size: int) -> None:
    """Raises ``ConfigError`` for a token id in ``params`` that the vocabulary has not."""
    named = {
        "stop_token_ids": params.stop_token_ids,
        "logit_bias": [token for token, _ in params.logit_bias],
    }
    for field, tokens in named.items():
        unknown = [token for token in tokens if not 0 <= token < vocab_size]
        if unknown:
            raise ConfigError(
                f"{field}: token id {unknown[0]} is not in the vocabulary of {vocab_size}"
            )


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


def draw_token(
    logits_V: Tensor, params: SamplingParams, sample: int, position: int
) -> tuple[int, Tensor]:
    """A token, and the logits of the distribution that it was drawn from; in torch alone.

    Greedy takes the lowest id among equal logits, and filters nothing.

    Raises:
        NonFiniteError: the largest logit is NaN or infinite, so there is no distribution.
    """
    largest = float(logits_V.max())
    if not math.isfinite(largest):
        raise _not_finite(position, largest)
    if params.temperature == 0:
        return int(logits_V.float().argmax()), logits_V
    filtered_V = sampling_logits(logits_V, params)
    cumulative = filtered_V.softmax(0).double().numpy(force=True).cumsum()
    threshold = uniform(params.seed, sample, position) * cumulative[-1]
    return int(np.searchsorted(cumulative, threshold, side="right")), filtered_V


def _not_finite(position: int, largest: float) -> NonFiniteError:
    return NonFiniteError(
        f"the largest logit at position {position} is {largest}: the model's weights or "
        "activations are not finite; go back to a checkpoint from before they diverged"
    )


@dataclass(frozen=True)
class Row:
    """Logits that a token is to be drawn from, and how."""

    logits_V: Tensor
    params: SamplingParams
    sample: int
    position: int
    own_V: Tensor | None = None
    """The model's own logits, before penalties and masks. None: no log-probabilities are wanted;
    else ``params.logprobs`` likeliest tokens are reported too."""


@dataclass(frozen=True)
class Drawn:
    """A token, and its log-probabilities where they were asked for."""

    token_id: int
    logprob: float | None = None  # in the model's own distribution
    sampled_logprob: float | None = None  # in the one that it was drawn from
    top: tuple[tuple[int, float], ...] = ()  # likeliest tokens in the model's own


def sample_token(logits_V: Tensor, params: SamplingParams, sample: int, position: int) -> int:
    """The token at ``position`` of sample number ``sample``; greedy at temperature 0.

    Raises what ``draw_token`` raises.
    """
    [drawn] = draw_rows([Row(logits_V, params, sample, position)])
    if isinstance(drawn, NonFiniteError):
        raise drawn
    return drawn.token_id


def draw_rows(rows: Sequence[Row]) -> list[Drawn | NonFiniteError]:
    """Each row's token as ``draw_token`` defines it, or why it has none; all vocabularies are
    equal. Whether the kernel draws a row does not depend on the others."""
    served = [
        _is_by_kernel(row.logits_V) and (row.own_V is None or _is_by_kernel(row.own_V))
        for row in rows
    ]
    from_kernel = iter(_draw_by_kernel(list(compress(rows, served))) if any(served) else ())
    return [
        next(from_kernel) if is_served else draw_by_torch(row)
        for row, is_served in zip(rows, served, strict=True)
    ]


def first_largest(logits_BV: Tensor) -> tuple[list[int], list[float]]:
    """The lowest id among each row's largest logits, and these; NaN where the row has one."""
    if not (_is_by_kernel(logits_BV) and logits_BV.is_contiguous()):
        largest_B, token_B = logits_BV.max(1)
        return token_B.tolist(), largest_B.tolist()
    rows, vocab_size = logits_BV.shape
    tokens, largest = (ctypes.c_int64 * rows)(), (ctypes.c_float * rows)()
    is_bf16 = int(logits_BV.dtype == torch.bfloat16)
    native.call("first_largest", logits_BV, is_bf16, tokens, largest, rows, vocab_size)
    return list(tokens), list(largest)


def likeliest(logprobs_V: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The ``count`` likeliest tokens with their log-probabilities, likeliest first."""
    if count == 0:
        return ()
    best = logprobs_V.topk(min(count, len(logprobs_V)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def _is_by_kernel(logits: Tensor) -> bool:
    return native.serves(logits, (torch.bfloat16, torch.float32))


def draw_by_torch(row: Row) -> Drawn | NonFiniteError:
    """The reference of the kernel."""
    try:
        token, drawn_from_V = draw_token(row.logits_V, row.params, row.sample, row.position)
    except NonFiniteError as error:
        return error
    if row.own_V is None:
        return Drawn(token)
    own_V = log_softmax(row.own_V[None])[0]
    sampled_V = log_softmax(drawn_from_V[None])[0]
    top = likeliest(own_V, row.params.logprobs or 0)
    return Drawn(token, float(own_V[token]), float(sampled_V[token]), top)


class _Record(ctypes.Structure):
    """``Row`` of ``csrc/sample_rows.cpp``, where its fields are described."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logits", "own", "top_ids", "top_logprobs")),
        *((name, ctypes.c_double) for name in ("temperature", "top_p", "min_p", "uniform")),
        *((name, ctypes.c_int64) for name in ("top_k", "num_top")),
        *((name, ctypes.c_int64) for name in ("logits_are_bf16", "own_is_bf16", "token")),
        *((name, ctypes.c_float) for name in ("largest", "logprob", "sampled_logprob")),
    )


def _draw_by_kernel(rows: Sequence[Row]) -> list[Drawn | NonFiniteError]:
    vocab_size = len(rows[0].logits_V)
    counts = [0 if row.own_V is None else min(row.params.logprobs or 0, vocab_size) for row in rows]
    top_ids = np.empty((len(rows), max(counts)), dtype=np.int64)
    top_logprobs = np.empty(top_ids.shape, dtype=np.float32)
    records = (_Record * len(rows))()
    held = []  # tensors must live until the kernel has read them
    for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
        assert len(row.logits_V) == vocab_size, (len(row.logits_V), vocab_size)
        params = row.params
        logits_V = row.logits_V.contiguous()
        own_V = None if row.own_V is None else row.own_V.contiguous()
        held += [logits_V, own_V]
        is_random = params.temperature != 0
        records[i] = _Record(
            logits_V.data_ptr(),
            None if own_V is None else own_V.data_ptr(),
            top_ids.ctypes.data + i * top_ids.strides[0],
            top_logprobs.ctypes.data + i * top_logprobs.strides[0],
            *(params.temperature, params.top_p, params.min_p),
            uniform(params.seed, row.sample, row.position) if is_random else 0.0,
            *(min(params.top_k, vocab_size), count),
            *(x is not None and x.dtype == torch.bfloat16 for x in (logits_V, own_V)),
        )
    native.call("sample_rows", records, len(rows), vocab_size)
    drawn: list[Drawn | NonFiniteError] = []
    for i, (row, record) in enumerate(zip(rows, records, strict=True)):
        if record.token < 0:
            drawn.append(_not_finite(row.position, record.largest))
        elif row.own_V is None:
            drawn.append(Drawn(record.token))
        else:
            top = slice(record.num_top)
            pairs = zip(top_ids[i, top].tolist(), top_logprobs[i, top].tolist(), strict=True)
            logprobs = record.logprob, record.sampled_logprob
            drawn.append(Drawn(record.token, *logprobs, tuple(pairs)))
    return drawn
