"""The next token of every sequence of a step, and what is reported of it.

Greedy requests without further wishes are drawn together; all others row by row, by
``ops/sampling.py``. A row that has no distribution (NaN, or nothing allowed) fails alone.

Letters: ``B`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from selenite.errors import ConfigError
from selenite.ops.logprobs import log_softmax
from selenite.ops.sampling import draw_token, penalized_logits
from selenite.serve.engine.request import Request, SampledToken


def sample(
    logits_BV: Tensor, requests: Sequence[Request], weight_version: int = 0
) -> list[SampledToken | Exception]:
    """A token for each row, or why there is none."""
    largest, token_B = logits_BV.max(1)
    largest_B, greedy_B = largest.tolist(), token_B.tolist()
    drawn: list[SampledToken | Exception] = []
    for row, request in enumerate(requests):
        greedy = greedy_B[row]
        is_taken = is_plain(request) and greedy not in request.banned_ids
        if is_taken and math.isfinite(largest_B[row]):
            drawn.append(SampledToken(greedy, weight_version=weight_version))
            continue
        try:
            drawn.append(_sample_row(logits_BV[row], request, weight_version))
        except Exception as error:  # noqa: BLE001 - one request's grammar must not end the others
            drawn.append(error)
    return drawn


def is_plain(request: Request) -> bool:
    """Whether the request takes the likeliest token and asks for nothing more."""
    params = request.params
    return (
        params.temperature == 0
        and params.logprobs is None
        and request.grammar is None
        and not params.logit_bias
        and params.repetition_penalty == 1
        and params.presence_penalty == params.frequency_penalty == 0
        and len(request.completion) >= params.min_tokens
    )


def _sample_row(logits_V: Tensor, request: Request, weight_version: int) -> SampledToken:
    params = request.params
    completion = request.tokens[len(request.prompt) :]
    adjusted_V = penalized_logits(logits_V, params, request.prompt, completion)
    adjusted_V = _restricted(adjusted_V, request)
    position = len(request.tokens)
    token, drawn_from_V = draw_token(adjusted_V, params, request.sample, position)
    if request.grammar is not None:
        request.grammar.accept(token)
    if params.logprobs is None:
        return SampledToken(token, weight_version=weight_version)
    own_V = log_softmax(logits_V[None])[0]
    return SampledToken(
        token,
        logprob=float(own_V[token]),
        sampled_logprob=float(log_softmax(drawn_from_V[None])[0, token]),
        top=likeliest(own_V, params.logprobs),
        weight_version=weight_version,
    )


def _restricted(logits_V: Tensor, request: Request) -> Tensor:
    """Without the tokens that are banned, or that the grammar or ``min_tokens`` excludes."""
    if request.banned_ids:
        logits_V = _without(logits_V, request.banned_ids)
    allowed = None if request.grammar is None else request.grammar.allowed_V()
    if allowed is not None:
        if not allowed.any():
            raise ConfigError(
                "the grammar allows no token here: the schema contradicts itself; mend it"
            )
        excluded = torch.from_numpy(~allowed).to(logits_V.device)
        logits_V = logits_V.masked_fill(excluded, -torch.inf)
    if len(request.completion) < request.params.min_tokens:
        longer_V = _without(logits_V, {*request.end_token_ids, *request.params.stop_token_ids})
        # Where a grammar allows nothing but the end, the text is as long as it can be.
        return longer_V if bool(longer_V.isfinite().any()) else logits_V
    return logits_V


def _without(logits_V: Tensor, tokens: Collection[int]) -> Tensor:
    index = torch.tensor(sorted(tokens), dtype=torch.int64, device=logits_V.device)
    return logits_V.index_fill(0, index, -torch.inf)


def likeliest(logprobs_V: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The ``count`` likeliest tokens with their log-probabilities, likeliest first."""
    if count == 0:
        return ()
    best = logprobs_V.topk(min(count, len(logprobs_V)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def prompt_logprobs(logits_TV: Tensor, targets: Sequence[int], count: int) -> list[SampledToken]:
    """What the model gave the prompt's tokens: rows of logits and the token after each."""
    logprobs_TV = log_softmax(logits_TV)
    return [
        SampledToken(token, logprob=float(row_V[token]), top=likeliest(row_V, count))
        for token, row_V in zip(targets, logprobs_TV, strict=True)
    ]
