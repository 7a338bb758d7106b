"""Completions on their way from the engine's thread to an asyncio reader.

generation = await service.chat(...)
async with generation:                 # whoever leaves early gives the pages back
    async for updates in generation.updates(): ...
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from selenite.chat.conversation import Conversation
from selenite.chat.events import CallFinished, Event, Reply, collect
from selenite.clock import Clock
from selenite.errors import SeleniteError, UnavailableError
from selenite.serve.choice_text import ChoiceText
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.request import Request, SampledToken
from selenite.types import FinishReason


@dataclass(frozen=True)
class End:
    """How a completion ended."""

    reason: FinishReason  # STOP or LENGTH: the others are raised
    has_calls: bool  # one or more complete tool calls
    stopped_by: str | int | None  # a stop string, or one of ``stop_token_ids``; None: neither


@dataclass(frozen=True)
class Update:
    """What has come about in one choice since its last update."""

    index: int
    tokens: tuple[SampledToken, ...]
    events: tuple[Event, ...]
    end: End | None  # None: it goes on


@dataclass(eq=False)
class Choice:
    """One completion. The engine's thread writes the times, the reader the rest."""

    index: int
    request: Request
    text: ChoiceText
    conversation: Conversation | None  # what it replies to; None: a plain completion
    num_told: int = 0  # tokens handed to the reader
    token_times: list[float] = field(default_factory=list)  # of the engine's clock
    ended_at: float | None = None
    end: End | None = None  # as the reader has it; None: not yet, or it has left before
    is_over: bool = False  # the reader has the end, or has left
    events: list[Event] = field(default_factory=list)

    @property
    def reply(self) -> Reply:
        """All of the text so far."""
        return collect(self.events)


@dataclass(frozen=True)
class _News:
    """From the engine's thread: a choice has these tokens now, and this end."""

    choice: Choice
    tokens: tuple[SampledToken, ...]
    events: tuple[Event, ...]  # of choices whose text the engine follows
    finish: FinishReason | None


class Generation:
    """Some completions that were asked for together; read by one reader.

    Args:
        thread: runs the engine.
        choices: in the order of their indices.
        clock: the engine's.
        timeout: seconds for all of it.
        on_end: called for each choice that has ended or was left, once.
    """

    def __init__(
        self,
        id: str,
        thread: EngineThread,
        choices: Sequence[Choice],
        clock: Clock,
        timeout: float,
        on_end: Callable[[Choice], None],
    ) -> None:
        self.id = id
        self.choices = choices
        self._thread = thread
        self._clock = clock
        self._timeout = timeout
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout
        self._news: asyncio.Queue[_News] = asyncio.Queue()

    async def submit(self) -> None:
        """Gives the requests to the engine; raises its ``ConfigError`` for one that cannot run."""
        futures = [
            asyncio.wrap_future(self._thread.submit(choice.request, self._listener(choice)))
            for choice in self.choices
        ]
        try:
            await asyncio.wait(futures)
            for future in futures:
                error = future.exception()
                if error is not None:
                    known = self._thread.is_alive or isinstance(error, SeleniteError)
                    raise error if known else _failed(error)
        except BaseException:  # the client has gone, or a request cannot run: then none does
            self.close()
            raise

    async def updates(self) -> AsyncIterator[list[Update]]:
        """All that is new, as soon as anything is, until every choice has ended.

        Raises the error of a request that failed, ``UnavailableError`` where the engine did, the
        server stops or its operator ends what runs, and ``TimeoutError`` after the time limit.
        """
        while not all(choice.is_over for choice in self.choices):
            batch = [await self._next()]
            while not self._news.empty():
                batch.append(self._news.get_nowait())
            yield [self._update(news) for news in batch]

    async def ends(self) -> dict[int, End]:
        """How each choice ended, by its index, once all have; raises as ``updates`` does."""
        ends: dict[int, End] = {}
        async for updates in self.updates():
            ends |= {update.index: update.end for update in updates if update.end}
        return ends

    def close(self) -> None:
        """Ends what has not ended: nobody reads it any more."""
        for choice in self.choices:
            if not choice.is_over:
                choice.is_over = True
                self._thread.abort(choice.request)
                self._on_end(choice)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each once."""
        return sum(len(choice.request.prompt) for choice in self._leaders)

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompts that were not computed anew."""
        return sum(choice.request.cached for choice in self._leaders)

    @property
    def num_drafts(self) -> tuple[int, int]:
        """Drafts of all choices that were verified so far, and of these, those that were said."""
        requests = [choice.request for choice in self.choices]
        return sum(r.num_drafted for r in requests), sum(r.num_accepted for r in requests)

    @property
    def num_completion_tokens(self) -> int:
        """Of all choices, as far as the reader has them."""
        return sum(choice.num_told for choice in self.choices)

    @property
    def _leaders(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.request.leader is None]

    def _listener(self, choice: Choice) -> Callable[[Request], None]:
        def told(request: Request) -> None:
            seen = len(choice.token_times)
            tokens = tuple(request.completion[seen:])
            now = self._clock.now()
            choice.token_times += [now] * len(tokens)
            if request.finish_reason is not None:
                choice.ended_at = now
            events = choice.text.events() if choice.text.hook else []
            news = _News(choice, tokens, tuple(events), request.finish_reason)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._news.put_nowait, news)

        return told

    async def _next(self) -> _News:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._news.get()
        except TimeoutError as error:
            raise timed_out(self._timeout) from error

    def _update(self, news: _News) -> Update:
        choice = news.choice
        choice.num_told += len(news.tokens)
        events = list(news.events)
        if not choice.text.hook:
            for token in news.tokens:
                choice.text.push(token.token_id)
        if news.finish in (FinishReason.ERROR, FinishReason.ABORT):
            raise failure(self._thread, choice.request)
        if news.finish is not None:
            choice.text.finish()
        events += choice.text.events() if news.finish or not choice.text.hook else []
        choice.events += events
        if news.finish is not None:
            choice.end = self._end(choice, news.finish)
            choice.is_over = True
            self._on_end(choice)
        return Update(choice.index, news.tokens, tuple(events), choice.end)

    def _end(self, choice: Choice, reason: FinishReason) -> End:
        stopped_by: str | int | None = choice.text.stop_string
        last = choice.request.completion[-1].token_id
        if reason is FinishReason.STOP and last in choice.request.params.stop_token_ids:
            stopped_by = last
        has_calls = any(isinstance(event, CallFinished) for event in choice.events)
        return End(reason, has_calls, stopped_by)


def failure(thread: EngineThread, request: Request) -> Exception:
    """Why a request came to no end of its own."""
    if request.finish_reason is FinishReason.ABORT:
        return UnavailableError(
            "the request was ended: the server stops, or its operator ended what ran"
        )
    assert request.error is not None, "failed without an error"
    return request.error if thread.is_alive else _failed(request.error)


def timed_out(seconds: float) -> TimeoutError:
    """Of a request that took longer."""
    return TimeoutError(
        f"the request took longer than {seconds:g} seconds; ask for less, or start the server with "
        "a larger --request-timeout"
    )


def _failed(cause: BaseException | None) -> UnavailableError:
    error = UnavailableError("the engine failed; the server must be started again")
    error.__cause__ = cause
    return error
