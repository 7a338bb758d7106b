"""The plain cached decoder: prefill each prompt, then one token a step for all that still run.

Each sequence has one page of its own, as long as it can ever get, so there is nothing to
allocate. Samples during training come from here, and it is the oracle of the serving engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from selenite.errors import ConfigError
from selenite.model.cache import EntryCache
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, Pages
from selenite.ops.logprobs import log_softmax
from selenite.ops.sampling import check_token_ids, sample_token
from selenite.runtime import is_batch_invariant
from selenite.types import FinishReason, SamplingParams

PREFILL_CHUNK = 512
"""Prompt tokens of a sequence that are computed in one step."""


@dataclass
class Decoded:
    """One sequence's result."""

    token_ids: list[int] = field(default_factory=list)  # as sampled, the end token included
    logprobs: list[float] = field(default_factory=list)  # the model's own, temperature 1
    finish_reason: FinishReason | None = None  # None while it runs


class CachedModel:
    """A model with the cached entries of some sequences, fed token by token or in chunks."""

    def __init__(
        self,
        model: Transformer,
        num_sequences: int,
        max_len: int,
        layout: Literal["latent", "expanded"] = "expanded",
    ) -> None:
        if max_len > model.config.max_positions:
            raise ConfigError(
                f"a sequence of {max_len} tokens exceeds the model's "
                f"max_positions={model.config.max_positions}; shorten the prompt or max_tokens"
            )
        if layout == "latent" and is_batch_invariant():
            raise ConfigError(
                "layout=latent: absorbed attention rounds differently from training; "
                "batch-invariant mode needs layout=expanded"
            )
        self.model = model
        self.max_len = max_len
        self.device = model.embed.weight.device
        self.lengths = [0] * num_sequences
        self.cache = EntryCache(
            model.config, num_sequences * max_len, model.compute_dtype, layout, self.device, max_len
        )

    @torch.no_grad()
    def extend(self, tokens: dict[int, list[int]]) -> Tensor:
        """Appends tokens to some sequences; hidden states ``[T, D]`` of the new rows in order."""
        rows: dict[int, range] = {}
        for sequence, new in tokens.items():
            first = self.lengths[sequence]
            rows[sequence] = range(first, first + len(new))
            self.lengths[sequence] += len(new)
        context = self.context(rows)
        tokens_T = self._on_device([token for new in tokens.values() for token in new])
        return self.model(tokens_T, context.positions_T, context).hidden_TD

    def context(self, rows: dict[int, range]) -> AttentionContext:
        """The context of a step over these positions of some sequences: it stores their entries,
        and those before them are cached."""
        positions: list[int] = []
        sequences: list[int] = []
        slots: list[int] = []
        segments: list[tuple[int, int, int]] = []
        for index, (sequence, span) in enumerate(rows.items()):
            assert span.stop <= self.max_len, (sequence, span, self.max_len)
            segments.append((len(positions), len(positions) + len(span), span.start))
            positions += span
            sequences += [index] * len(span)
            slots += [sequence * self.max_len + position for position in span]
        pages = Pages(
            size=self.max_len,
            table_BP=self._on_device(list(rows))[:, None],
            lengths=tuple(span.stop for span in rows.values()),
            write_T=self._on_device(slots),
            store=self.cache,
        )
        return AttentionContext(
            self._on_device(positions), self._on_device(sequences), tuple(segments), pages=pages
        )

    def _on_device(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)


@torch.no_grad()
def decode(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    end_token_ids: frozenset[int] = frozenset(),
    layout: Literal["latent", "expanded"] = "expanded",
) -> list[Decoded]:
    """Continues each prompt by its own sampling parameters.

    Args:
        model: in evaluation or training; its dtype is used as it is.
        prompts: token ids, at least one each.
        params: one for each prompt.
        end_token_ids: tokens that end a completion, unless ``ignore_eos``.
        layout: how MLA entries are cached.

    Raises:
        ConfigError: an empty prompt, one too long for the model with its ``max_tokens``, or a token
            id in ``params`` that is not in the vocabulary.
    """
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise ConfigError(f"prompt {index} is empty: give at least one token")
    for sampling in params:
        check_token_ids(sampling, model.config.vocab_size)
    if not prompts:
        return []
    longest = max(len(p) + s.max_tokens for p, s in zip(prompts, params, strict=True))
    cached = CachedModel(model, len(prompts), longest, layout)
    results = [Decoded() for _ in prompts]
    for sequence, prompt in enumerate(prompts):
        for first in range(0, len(prompt), PREFILL_CHUNK):
            hidden_TD = cached.extend({sequence: list(prompt[first : first + PREFILL_CHUNK])})
        _append(
            results[sequence],
            model.logits(hidden_TD[-1:])[0],
            sequence,
            cached,
            params,
            end_token_ids,
        )
    while running := [i for i, r in enumerate(results) if r.finish_reason is None]:
        hidden_BD = cached.extend({i: [results[i].token_ids[-1]] for i in running})
        for sequence, logits_V in zip(running, model.logits(hidden_BD), strict=True):
            _append(results[sequence], logits_V, sequence, cached, params, end_token_ids)
    return results


def _append(
    result: Decoded,
    logits_V: Tensor,
    sequence: int,
    cached: CachedModel,
    params: Sequence[SamplingParams],
    end_token_ids: frozenset[int],
) -> None:
    """Samples the next token of a sequence and says whether it ends there."""
    own = params[sequence]
    token = sample_token(logits_V, own, sample=0, position=cached.lengths[sequence])
    result.token_ids.append(token)
    result.logprobs.append(float(log_softmax(logits_V[None])[0, token]))
    ends = own.stop_token_ids if own.ignore_eos else (*own.stop_token_ids, *end_token_ids)
    if token in ends:
        result.finish_reason = FinishReason.STOP
    elif len(result.token_ids) >= own.max_tokens:
        result.finish_reason = FinishReason.LENGTH
