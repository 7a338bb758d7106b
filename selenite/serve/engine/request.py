"""One request's way through the engine: what it asked for, what it holds, what came of it.

Plain records, written by the scheduler (pages, progress) and the engine (tokens, the end).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np

from selenite.ops.attention_context import BlockRouting
from selenite.serve.attention_mode import AttentionMode
from selenite.serve.cache.prefix import PageKeys
from selenite.serve.engine.pooling import Pooler
from selenite.types import FinishReason, SamplingParams


class Status(StrEnum):
    """Where a request is."""

    WAITING = "waiting"  # holds no pages
    RUNNING = "running"
    FINISHED = "finished"


class Grammar(Protocol):
    """What a request's tokens must follow; one object a request, moved on by its tokens."""

    def allowed_V(self) -> np.ndarray | None:
        """bool ``[V]``: tokens that may come next; None: all of them."""
        ...

    def accept(self, token: int) -> None:
        """Moves on by a sampled token."""
        ...


@dataclass(frozen=True)
class SampledToken:
    """One token of a completion and what is known of it."""

    token_id: int
    logprob: float | None = None
    """In the model's own distribution (temperature 1); None: not asked for."""
    sampled_logprob: float | None = None
    """In the distribution that it was drawn from: after temperature, penalties, filters and
    grammar."""
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, in the model's distribution
    weight_version: int = 0  # of the weights that computed its logits


@dataclass(eq=False)
class Request:
    """A prompt to be continued. ``prompt`` is not empty."""

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams
    end_token_ids: frozenset[int] = frozenset()
    sample: int = 0  # number among the samples of one prompt
    salt: str = ""  # prefixes are shared only with requests of the same salt
    adapter: str | None = None
    attention: AttentionMode | None = None  # what its rows read; None: as the engine has it
    grammar: Grammar | None = None
    banned_ids: frozenset[int] = frozenset()  # never sampled
    pooler: Pooler | None = None
    """Given, the request wants a vector of its prompt, and no tokens."""
    stops: Callable[[int], bool] | None = None
    """Told every sampled token; true ends the completion there (stop strings)."""
    leader: Request | None = None
    """A request with the same prompt, whose prompt this one waits for instead of computing it."""
    wants_routing: bool = False  # of an engine that records it
    is_queued: bool = False  # an engine has taken it
    arrival: float = 0.0  # seconds of the engine's clock

    status: Status = Status.WAITING
    routing: BlockRouting | None = None  # that follows from ``attention``
    tokens: list[int] = field(init=False)  # prompt and completion
    computed: int = 0  # tokens whose entries are cached
    pages: list[int] = field(default_factory=list)
    keys: PageKeys | None = None  # of its pages, made when they are first asked for
    cached: int = 0  # tokens of the prompt that were found in the prefix cache
    preemptions: int = 0
    publishes: bool = True
    """False once entries of older weights are among its own: others must not read them."""
    first_scheduled: float | None = None
    completion: list[SampledToken] = field(default_factory=list)
    prompt_logprobs: list[SampledToken] = field(default_factory=list)
    """Of the prompt's tokens from the second on, where asked for."""
    expert_ids: list[np.ndarray] = field(default_factory=list)
    """Where asked for: of each token drawn, the experts ``[R, L, K]`` of the rows that it was the
    first to need, in the pass that gave its log-probability. Joined, of prompt and completion but
    for the last token."""
    finish_reason: FinishReason | None = None
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @cached_property
    def takes_likeliest(self) -> bool:
        """Whether it takes the likeliest token, of the model's own logits, and asks for no more."""
        params = self.params
        return (
            params.temperature == 0
            and params.logprobs is None
            and self.grammar is None
            and not params.logit_bias
            and params.repetition_penalty == 1
            and params.presence_penalty == params.frequency_penalty == 0
        )

    @property
    def is_prefilled(self) -> bool:
        """Whether the next token's logits need one more row only."""
        return self.computed >= len(self.tokens) - 1 and bool(self.completion)

    @property
    def needs_every_row(self) -> bool:
        """Whether all of the prompt must be computed, even what the prefix cache holds."""
        is_mean = self.pooler is not None and self.pooler.pooling == "mean"
        return is_mean or self.params.prompt_logprobs is not None

    @property
    def most_tokens(self) -> int:
        """Of prompt and completion together, at most."""
        return len(self.prompt) + (0 if self.pooler else self.params.max_tokens)

    @property
    def most_entries(self) -> int:
        """That it can come to need: the last sampled token's are never stored."""
        return max(len(self.prompt), self.most_tokens - 1)


@dataclass(frozen=True)
class Chunk:
    """Tokens of a request that one step computes: positions ``start`` to ``stop - 1``."""

    request: Request
    start: int
    stop: int

    @property
    def samples(self) -> bool:
        """Whether the step gives the request a new token."""
        return self.stop == len(self.request.tokens)

    @property
    def is_decode(self) -> bool:
        """Whether it is the last sampled token alone, whose logits give the next one."""
        return self.request.is_prefilled and self.stop - self.start == 1
