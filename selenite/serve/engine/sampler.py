"""The next token of every sequence of a step, and what is reported of it.

The rows of a step are drawn together, by ``ops/sampling.py``, from copies where penalties, masks or
a grammar change a row's logits. A row that has no distribution (NaN, or nothing allowed) fails
alone.

Letters: ``B`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from selenite.errors import ConfigError, NonFiniteError
from selenite.ops.logprobs import log_softmax
from selenite.ops.sampling import (
    Drawn,
    Row,
    draw_rows,
    first_largest,
    likeliest,
    penalized_logits,
)
from selenite.serve.engine.request import Request, SampledToken


def sample(
    logits_BV: Tensor,
    requests: Sequence[Request],
    weight_version: int = 0,
    drafts: Collection[Request] = (),
) -> list[SampledToken | Exception]:
    """A token for each row, or why there is none. Grammars know nothing of ``drafts``."""
    results: dict[int, SampledToken | Exception] = {
        i: SampledToken(token, weight_version=weight_version)
        for i, token in _greedy(logits_BV, requests).items()
    }
    rows: dict[int, Row] = {}
    for i, request in enumerate(requests):
        if i not in results:
            try:
                rows[i] = _row(logits_BV[i], request, request in drafts)
            except Exception as error:  # noqa: BLE001 - one request's grammar must not end the others
                results[i] = error
    for i, drawn in zip(rows, draw_rows(list(rows.values())), strict=True):
        try:
            results[i] = _accepted(drawn, requests[i], weight_version, requests[i] in drafts)
        except Exception as error:  # noqa: BLE001 - the same
            results[i] = error
    return [results[i] for i in range(len(requests))]


def _greedy(logits_BV: Tensor, requests: Sequence[Request]) -> dict[int, int]:
    """Row -> token of the rows that take the likeliest and ask for nothing more."""
    plain = [
        i
        for i, request in enumerate(requests)
        if request.takes_likeliest and _written(request) >= request.params.min_tokens
    ]
    if not plain:
        return {}
    token_B, largest_B = first_largest(logits_BV)
    return {
        i: token_B[i]
        for i in plain
        if math.isfinite(largest_B[i]) and token_B[i] not in requests[i].banned_ids
    }


def _row(logits_V: Tensor, request: Request, is_draft: bool) -> Row:
    params = request.params
    completion = request.tokens[len(request.prompt) :]
    adjusted_V = penalized_logits(logits_V, params, request.prompt, completion)
    adjusted_V = _restricted(adjusted_V, request, is_draft)
    own_V = None if params.logprobs is None else logits_V
    return Row(adjusted_V, params, request.sample, len(request.tokens), own_V)


def _accepted(
    drawn: Drawn | NonFiniteError, request: Request, weight_version: int, is_draft: bool
) -> SampledToken | NonFiniteError:
    if isinstance(drawn, NonFiniteError):
        return drawn
    if request.grammar is not None and not is_draft:
        request.grammar.accept(drawn.token_id)
    return SampledToken(
        drawn.token_id, drawn.logprob, drawn.sampled_logprob, drawn.top, weight_version
    )


def _restricted(logits_V: Tensor, request: Request, is_draft: bool) -> Tensor:
    """Without the tokens that are banned, or that the grammar or ``min_tokens`` excludes."""
    if request.banned_ids:
        logits_V = _without(logits_V, request.banned_ids)
    grammar = None if is_draft else request.grammar
    allowed = None if grammar is None else grammar.allowed_V()
    if allowed is not None:
        if not allowed.any():
            raise ConfigError("the grammar allows no token here: it contradicts itself; mend it")
        excluded = torch.from_numpy(~allowed).to(logits_V.device)
        logits_V = logits_V.masked_fill(excluded, -torch.inf)
    if _written(request) < request.params.min_tokens:
        longer_V = _without(logits_V, {*request.end_token_ids, *request.params.stop_token_ids})
        # Where a grammar allows nothing but the end, the text is as long as it can be.
        return longer_V if bool(longer_V.isfinite().any()) else logits_V
    return logits_V


def _written(request: Request) -> int:
    """Tokens after the prompt, drafts included."""
    return len(request.tokens) - len(request.prompt)


def _without(logits_V: Tensor, tokens: Collection[int]) -> Tensor:
    index = torch.tensor(sorted(tokens), dtype=torch.int64, device=logits_V.device)
    return logits_V.index_fill(0, index, -torch.inf)


def prompt_logprobs(logits_TV: Tensor, targets: Sequence[int], count: int) -> list[SampledToken]:
    """What the model gave the prompt's tokens: rows of logits and the token after each."""
    logprobs_TV = log_softmax(logits_TV)
    return [
        SampledToken(token, logprob=float(row_V[token]), top=likeliest(row_V, count))
        for token, row_V in zip(targets, logprobs_TV, strict=True)
    ]
