"""``/generate``: token ids in, token ids and log-probabilities out. What RL samples with.

No text, no templates: what was sampled is returned exactly, end tokens included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal

from pydantic import BaseModel, Field

from selenite.serve.engine.request import SampledToken
from selenite.serve.generation import Choice, End, Generation
from selenite.serve.http.completions import TokenIds
from selenite.serve.http.protocol import NumChoices, SamplingFields, Usage
from selenite.serve.http.stream import DONE, event
from selenite.serve.http.usage import usage_of
from selenite.serve.service import CompletionRequest


class GenerateBody(SamplingFields):
    """The request."""

    prompt_token_ids: TokenIds
    n: NumChoices = 1
    max_tokens: int = Field(default=128, ge=1)
    logprobs: int | None = Field(default=0, ge=0, le=20)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)

    def request(self) -> CompletionRequest:
        """As the service takes it."""
        options = self.options(self.max_tokens, self.logprobs, self.prompt_logprobs, n=self.n)
        return CompletionRequest((tuple(self.prompt_token_ids),), options)


class ScoredTokens(BaseModel):
    """Tokens and what is known of them; lists of one length."""

    token_ids: list[int]
    logprobs: list[float | None]  # in the model's own distribution
    sampled_logprobs: list[float | None]  # in the one that was drawn from; None: not drawn
    top_logprobs: list[list[tuple[int, float]]]
    weight_versions: list[int]  # of the weights that computed the token's logits


class GeneratedChoice(BaseModel):
    """A completion, or a piece of one."""

    index: int
    tokens: ScoredTokens
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: str | int | None = None


class Generated(BaseModel):
    """The answer, or a piece of it."""

    id: str
    choices: list[GeneratedChoice]
    prompt: ScoredTokens | None = None  # from the second token on; None: not asked for
    usage: Usage | None = None


class GenerateWriter:
    """Writes a generation as ids, whole or in pieces."""

    def __init__(self, body: GenerateBody, generation: Generation) -> None:
        self._body = body
        self._generation = generation

    async def whole(self) -> Generated:
        """All of it, at the end."""
        ends = await self._generation.ends()
        choices = [
            _choice(c.index, c.request.completion, ends[c.index]) for c in self._generation.choices
        ]
        return Generated(
            id=self._generation.id,
            choices=choices,
            prompt=self._prompt(self._generation.choices[0]),
            usage=usage_of(self._generation),
        )

    async def pieces(self) -> AsyncIterator[bytes]:
        """Events of a stream; the last one before the end has prompt and usage."""
        async for updates in self._generation.updates():
            choices = [_choice(u.index, u.tokens, u.end) for u in updates]
            yield event(Generated(id=self._generation.id, choices=choices))
        prompt, usage = self._prompt(self._generation.choices[0]), usage_of(self._generation)
        yield event(Generated(id=self._generation.id, choices=[], prompt=prompt, usage=usage))
        yield DONE

    def _prompt(self, choice: Choice) -> ScoredTokens | None:
        if self._body.prompt_logprobs is None:
            return None
        return _scored(choice.request.prompt_logprobs)


def _choice(index: int, tokens: Sequence[SampledToken], end: End | None) -> GeneratedChoice:
    return GeneratedChoice(
        index=index,
        tokens=_scored(tokens),
        finish_reason=None if end is None else end.reason.value,
        stop_reason=None if end is None else end.stopped_by,
    )


def _scored(tokens: Sequence[SampledToken]) -> ScoredTokens:
    return ScoredTokens(
        token_ids=[token.token_id for token in tokens],
        logprobs=[token.logprob for token in tokens],
        sampled_logprobs=[token.sampled_logprob for token in tokens],
        top_logprobs=[list(token.top) for token in tokens],
        weight_versions=[token.weight_version for token in tokens],
    )
