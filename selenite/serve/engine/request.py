"""One request's way through the engine: what it asked for, what it holds, what came of it.

Plain records, written by the scheduler (pages, progress) and the engine (tokens, the end).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
from torch import Tensor

from selenite.ops.attention_context import TokenSelection
from selenite.serve.attention_mode import EVERYTHING, AttentionMode, Reading
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
    reading: Reading = EVERYTHING  # that follows from ``attention``
    tokens: list[int] = field(init=False)  # prompt, completion and drafts
    drafts: int = 0  # of its tokens the last ones, which are not said before they are verified
    num_drafted: int = 0  # drafts that were verified
    num_accepted: int = 0  # of these, what full attention says, too
    computed: int = 0  # tokens whose entries are cached
    clean: int = 0
    """Of these the first ones that were computed reading everything that the request's rows are to
    read: all, unless decoding rows chose tokens."""
    known: int = 0  # tokens that it had when it (last) started
    merged: int = 0  # of its tokens, those that have no slot of their own any more
    compressions: int = 0  # since its tokens had a slot each
    queries: deque[Tensor] = field(default_factory=deque)
    """Of its last rows, ``[L, N, H]`` each: they say which slots are kept."""
    sums: Tensor | None = None
    """Where slots are kept by it: what all rows attended to, ``[L, M, S]`` by slot."""
    pages: list[int] = field(default_factory=list)
    published: int = 0  # of its pages, the first ones, that the prefix cache knows
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
    def is_to_be_verified(self) -> bool:
        """Whether it has all the drafts that it may have."""
        most = self.reading.drafts
        return most is not None and self.drafts > 0 and self.drafts >= min(most, self.most_drafts)

    @property
    def most_drafts(self) -> int:
        """That its completion has room for: the row of the last one gives one more token."""
        return self.params.max_tokens - len(self.completion) - 1

    def drop_drafts(self) -> None:
        """Forgets drafts that were not verified."""
        if self.drafts:
            del self.tokens[-self.drafts :]
            self.drafts = 0

    @property
    def slots(self) -> int:
        """That hold its entries."""
        return self.computed - self.merged

    @property
    def most_slots(self) -> int | None:
        """Once it has more, some are merged; None: never."""
        compression = self.reading.compression
        if compression is None or self.pooler is not None:
            return None
        if self.compressions == 0 and len(self.prompt) > compression.budget:
            return compression.budget
        every = compression.mode.every
        return None if every is None else compression.budget + every - 1

    @property
    def is_to_be_compressed(self) -> bool:
        """Whether it has too many slots, with nothing left to be computed of what it began with."""
        most = self.most_slots
        is_read = self.is_prefilled and self.computed >= self.known
        return is_read and most is not None and self.slots > most

    def keep_queries(self, queries: Iterable[Tensor]) -> None:
        """Of rows that were computed, ``[L, N, H]`` each; the oldest ones go."""
        assert self.reading.compression is not None
        self.queries.extend(queries)
        while len(self.queries) > self.reading.compression.window:
            self.queries.popleft()

    @property
    def needs_every_row(self) -> bool:
        """Whether all of the prompt must be computed, even what the prefix cache holds."""
        is_mean = self.pooler is not None and self.pooler.pooling == "mean"
        return is_mean or self.sums_attention or self.params.prompt_logprobs is not None

    @property
    def sums_attention(self) -> bool:
        """Whether what its rows attend to says which slots are kept."""
        compression = self.reading.compression
        is_wanted = compression is not None and compression.mode.keep == "h2o"
        return is_wanted and self.most_slots is not None

    def add_sums(self, sums_LMS: Tensor) -> None:
        """Of rows that were computed."""
        if self.sums is not None:
            sums_LMS[..., : self.sums.shape[2]] += self.sums
        self.sums = sums_LMS

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

    @property
    def selection(self) -> TokenSelection | None:
        """How its row chooses tokens, if it decodes and there are more than it may read."""
        found = self.request.reading.selection
        request = self.request
        if found is None or not self.is_decode or self.stop - request.merged <= found.budget:
            return None
        if request.reading.drafts and request.drafts >= request.most_drafts:
            return None
        return found

    @property
    def is_summed(self) -> bool:
        """Whether what its rows attend to is added up: until slots are merged."""
        return self.request.sums_attention and self.request.compressions == 0

    @property
    def num_queries(self) -> int:
        """Of its last rows, those whose queries will be asked for when slots are merged."""
        request = self.request
        compression, most = request.reading.compression, request.most_slots
        if compression is None or most is None:
            return 0
        # Slots are merged when so many tokens are computed.
        earliest = max(request.known, most + 1 + request.merged)
        return max(0, self.stop - max(self.start, earliest - compression.window))
