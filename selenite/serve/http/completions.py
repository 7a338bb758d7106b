"""``/v1/completions``: texts or token ids to be continued, without a chat."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from selenite.chat.events import ContentDelta
from selenite.errors import ConfigError
from selenite.serve.engine.request import SampledToken
from selenite.serve.generation import Choice, End, Generation, Update
from selenite.serve.http.logprobs import TokenWords
from selenite.serve.http.protocol import Items, NumChoices, SamplingFields, StreamOptions, Usage
from selenite.serve.http.stream import DONE, event
from selenite.serve.http.usage import usage_of
from selenite.serve.service import CompletionRequest, Service
from selenite.types import FinishReason

TokenIds = Annotated[
    Items[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=2**20)
]
Prompts = (
    str
    | TokenIds
    | Annotated[Items[str], Field(min_length=1, max_length=128)]
    | Annotated[Items[TokenIds], Field(min_length=1, max_length=128)]
)
FinishName = Literal["stop", "length"]


class CompletionBody(SamplingFields):
    """The request."""

    prompt: Prompts
    n: NumChoices = 1
    max_tokens: int = Field(default=16, ge=0, description="0: with echo, to score the prompt.")
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    stream_options: StreamOptions | None = None
    add_special_tokens: bool = Field(default=True, description="The start token before a text.")

    def request(self) -> CompletionRequest:
        """As the service takes it; raises ``ConfigError`` where fields contradict each other."""
        if self.max_tokens == 0 and not self.echo:
            raise ConfigError("max_tokens=0: nothing would be returned; set echo, or ask for more")
        options = self.options(
            max(1, self.max_tokens),
            logprobs=self.logprobs,
            prompt_logprobs=self.logprobs if self.echo else None,
            n=self.n,
        )
        return CompletionRequest(prompts_of(self.prompt), options, self.add_special_tokens)


def prompts_of(prompts: Prompts) -> tuple[str | tuple[int, ...], ...]:
    """One or several, texts or ids, in one shape."""
    if isinstance(prompts, str):
        return (prompts,)
    several = [prompts] if isinstance(prompts[0], int) else prompts
    return tuple(p if isinstance(p, str) else tuple(p) for p in several)


class CompletionLogprobs(BaseModel):
    """Of every token; lists of one length."""

    tokens: list[str]
    token_logprobs: list[float | None]  # None: of the prompt's first token
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]  # where the token begins in the text, counted in their own characters


class CompletionChoice(BaseModel):
    """A completion, or a piece of one."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishName | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Completion(BaseModel):
    """The answer, or a piece of it."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None


class CompletionWriter:
    """Writes a generation in OpenAI's shape, whole or in pieces."""

    def __init__(self, body: CompletionBody, generation: Generation, service: Service) -> None:
        self._body = body
        self._generation = generation
        self._tokenizer = service.tokenizer
        self._words = TokenWords(service)
        self._options = body.stream_options or StreamOptions()
        self._prompts = prompts_of(body.prompt)
        self._offsets = [0] * len(generation.choices)
        self._head = {
            "id": f"cmpl-{generation.id}",
            "created": int(datetime.now(UTC).timestamp()),
            "model": body.model or service.loaded.name,
        }

    async def whole(self) -> Completion:
        """All of it, at the end: the sum of the pieces."""
        parts: dict[int, list[CompletionChoice]] = {c.index: [] for c in self._generation.choices}
        async for updates in self._generation.updates():
            for update in updates:
                parts[update.index].append(self._piece(update, not parts[update.index]))
        choices = [_joined(pieces) for pieces in parts.values()]
        return Completion(**self._head, choices=choices, usage=self._usage())

    async def pieces(self) -> AsyncIterator[bytes]:
        """Events of a stream."""
        begun: set[int] = set()
        async for updates in self._generation.updates():
            data = b""
            for update in updates:
                piece = self._piece(update, update.index not in begun)
                begun.add(update.index)
                if piece.text or piece.logprobs or piece.finish_reason or piece.token_ids:
                    data += event(self._chunk(piece))
            if data:
                yield data
        if self._options.include_usage:
            last = self._chunk()
            last.usage = self._usage()
            yield event(last)
        yield DONE

    def _chunk(self, *choices: CompletionChoice) -> Completion:
        chunk = Completion(object="text_completion", **self._head, choices=list(choices))
        if self._options.continuous_usage_stats:
            chunk.usage = self._usage()
        elif self._options.include_usage:
            chunk.usage = None  # set, so that it is written: it comes in the last chunk
        return chunk

    def _piece(self, update: Update, is_first: bool) -> CompletionChoice:
        choice = self._generation.choices[update.index]
        tokens = () if self._scores_only else update.tokens
        text = "".join(e.text for e in update.events if isinstance(e, ContentDelta))
        text = "" if self._scores_only else text
        scored: list[SampledToken] = [*tokens]
        if self._body.echo and is_first:
            text = self._prompt_text(choice) + text
            scored = [*self._prompt_tokens(choice), *tokens]
        piece = CompletionChoice(index=update.index, text=text)
        piece.logprobs = self._logprobs(update.index, scored)
        if self._body.return_token_ids:
            piece.token_ids = [token.token_id for token in tokens]
            piece.prompt_token_ids = list(choice.request.prompt) if is_first else None
        if update.end is not None:
            piece.finish_reason = self._finish_name(update.end)
            piece.stop_reason = update.end.stopped_by
        return piece

    @property
    def _scores_only(self) -> bool:
        return self._body.max_tokens == 0

    def _finish_name(self, end: End) -> FinishName:
        is_cut = self._scores_only or end.reason is FinishReason.LENGTH
        return "length" if is_cut else "stop"

    def _usage(self) -> Usage:
        usage = usage_of(self._generation)
        if self._scores_only:
            usage.completion_tokens, usage.total_tokens = 0, usage.prompt_tokens
        return usage

    def _prompt_text(self, choice: Choice) -> str:
        prompt = self._prompts[choice.index // self._body.n]
        return prompt if isinstance(prompt, str) else self._tokenizer.decode(prompt)

    def _prompt_tokens(self, choice: Choice) -> list[SampledToken]:
        """The prompt with its scores; without one for the first token, which follows nothing."""
        leader = choice.request.leader or choice.request
        return [SampledToken(leader.prompt[0]), *leader.prompt_logprobs]

    def _logprobs(self, index: int, tokens: Sequence[SampledToken]) -> CompletionLogprobs | None:
        if self._body.logprobs is None or not tokens:
            return None
        words = [self._words.text(token.token_id) for token in tokens]
        offsets: list[int] = []
        for word in words:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(word)
        return CompletionLogprobs(
            tokens=words,
            token_logprobs=[token.logprob for token in tokens],
            top_logprobs=[
                None if t.logprob is None else {self._words.text(id): lp for id, lp in t.top}
                for t in tokens
            ],
            text_offset=offsets,
        )


def _joined(pieces: Sequence[CompletionChoice]) -> CompletionChoice:
    """Pieces of one completion as one."""
    scored = [piece.logprobs for piece in pieces if piece.logprobs is not None]
    ids = [piece.token_ids for piece in pieces if piece.token_ids is not None]
    return CompletionChoice(
        index=pieces[0].index,
        text="".join(piece.text for piece in pieces),
        logprobs=CompletionLogprobs(
            tokens=[t for part in scored for t in part.tokens],
            token_logprobs=[t for part in scored for t in part.token_logprobs],
            top_logprobs=[t for part in scored for t in part.top_logprobs],
            text_offset=[t for part in scored for t in part.text_offset],
        )
        if scored
        else None,
        finish_reason=pieces[-1].finish_reason,
        stop_reason=pieces[-1].stop_reason,
        token_ids=[id for part in ids for id in part] if ids else None,
        prompt_token_ids=pieces[0].prompt_token_ids,
    )
