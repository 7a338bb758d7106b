"""Lets a model act: episodes of environments over the serving engine, many at once.

    for each rollout:  opening ─► engine ─► turn ─► environment ─► engine ... ─► score

Everything waits in one asyncio loop; the engine and the environments run in threads of their own. A
rollout's ids only grow: what was sampled is never encoded again. An engine that is paused, given
other weights and resumed goes on in the middle of a token's neighbours; each token says which
weights drew it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
from pydantic import Field

from selenite.chat.conversation import Conversation
from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.config import Config
from selenite.errors import ConversationError, UnavailableError
from selenite.rl.gym.environment import Budget, Environment, EnvironmentFailedError, Episode, Score
from selenite.rl.rollout import Rollout, Status
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.request import Request, SampledToken
from selenite.types import FinishReason, SamplingParams

Result = TypeVar("Result")


class ActorConfig(Config):
    """How rollouts are made."""

    truncated: float = Field(default=0.1, ge=0, le=0.5)
    """What an attempt loses that goes over its budget: its reward is minus this."""
    call_seconds: float = Field(default=30.0, gt=0)
    """What one answer of an environment, or its score, may take of the clock."""
    calls_at_once: int = Field(default=64, ge=1)
    """Answers of environments that are waited for at the same time."""


class _Ended(Exception):  # noqa: N818 - an end, not an error
    """An attempt is over before its time."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass
class _Attempt:
    """What is known of a rollout while it runs."""

    environment: Environment
    task: int
    number: int
    seed: int
    temperature: float
    leader: asyncio.Future[Request | None]
    """The first one's request for the first turn, whose prompt is that of the others."""
    conversation: Conversation
    episode: Episode | None = None
    turns: list[list[SampledToken]] = field(default_factory=list)
    expert_ids: list[np.ndarray] = field(default_factory=list)
    """Of each turn those of the rows that no turn before had; where they are recorded."""
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def num_sampled(self) -> int:
        return sum(map(len, self.turns))


class Actor:
    """Makes rollouts. Its coroutines run in one asyncio loop.

    Args:
        thread: runs the engine.
        tokenizer: the model's, with its template.
        profile: how the model talks.
        config: how rollouts are made.
        wants_routing: rollouts say which experts computed them, which the engines record.
    """

    def __init__(
        self,
        thread: EngineThread,
        tokenizer: Tokenizer,
        profile: ChatProfile,
        config: ActorConfig,
        wants_routing: bool = False,
    ) -> None:
        self.thread = thread
        self._tokenizer, self._profile = tokenizer, profile
        self._config, self._wants_routing = config, wants_routing
        self._ends = frozenset(profile.stop_ids(tokenizer))
        self._places = asyncio.Semaphore(config.calls_at_once)

    @property
    def _clock(self) -> Clock:
        return self.thread.engine.clock

    async def group(
        self, environment: Environment, task: int, size: int, seed: int, temperature: float
    ) -> list[Rollout]:
        """``size`` attempts at one task; the same for the same seed and weights."""
        leader: asyncio.Future[Request | None] = asyncio.get_running_loop().create_future()
        own_seed = int.from_bytes(
            hashlib.sha256(f"{seed}/{environment.name}/{task}".encode()).digest()[:8]
        )
        attempts = [
            _Attempt(
                *(environment, task, number, own_seed, temperature, leader),
                Conversation.start(self._tokenizer, (), self._profile),
            )
            for number in range(size)
        ]
        return list(await asyncio.gather(*map(self._rollout, attempts)))

    async def _rollout(self, attempt: _Attempt) -> Rollout:
        status, reason, score = Status.DONE, "", None
        try:
            await self._play(attempt)
            assert attempt.episode is not None
            score = await self._call(attempt, "scoring", attempt.episode.score)
        except _Ended as end:
            status, reason = end.status, end.reason
        finally:
            if attempt.number == 0 and not attempt.leader.done():
                attempt.leader.set_result(None)  # the others wait for nothing
        return self._record(attempt, status, reason, score)

    async def _play(self, attempt: _Attempt) -> None:
        """To the episode's end; raises ``_Ended`` for any other."""
        begin = attempt.environment.begin
        attempt.episode = await self._call(attempt, "tools", partial(begin, attempt.task))
        episode = attempt.episode
        start = Conversation.start(self._tokenizer, episode.tools, self._profile)
        attempt.conversation = _extended(start, episode)
        budget = attempt.environment.budget
        for _ in range(budget.turns):
            sampled, finish = await self._turn(attempt, budget)
            ids = [token.token_id for token in sampled]
            conversation = attempt.conversation.with_reply(ids)
            attempt.conversation = conversation
            if finish is FinishReason.LENGTH:
                raise _Ended(Status.TRUNCATED, f"over {budget.tokens} tokens, or the context")
            turn = conversation.messages[-1]
            more = await self._call(attempt, "tools", partial(episode.reply, turn))
            if not more:
                return
            try:
                attempt.conversation = conversation.extended(more)
            except ConversationError as error:
                raise _Ended(Status.ENVIRONMENT, f"an answer makes no turn: {error}") from error
        raise _Ended(Status.TRUNCATED, f"over {budget.turns} turns")

    async def _turn(
        self, attempt: _Attempt, budget: Budget
    ) -> tuple[list[SampledToken], FinishReason]:
        """One turn of the model, at most as long as budget and context allow."""
        prompt = tuple(attempt.conversation.prompt_ids())
        engine = self.thread.engine
        cached = engine.config.num_pages * engine.config.page_size
        most = min(engine.runner.model.config.max_positions, cached) - len(prompt)
        room = min(budget.tokens - attempt.num_sampled, most)
        if room < 1:
            raise _Ended(Status.TRUNCATED, "no room for another turn")
        is_first = not attempt.turns
        leader = None
        if is_first and attempt.number > 0:
            leader = await attempt.leader
        request = Request(
            uuid.uuid4().hex,
            prompt,
            SamplingParams(
                temperature=attempt.temperature, max_tokens=room, seed=attempt.seed, logprobs=0
            ),
            end_token_ids=self._ends,
            sample=attempt.number,
            leader=leader,
            wants_routing=self._wants_routing,
        )
        if is_first and attempt.number == 0:
            attempt.leader.set_result(request)
        start = self._clock.now()
        try:
            await self._finished(request)
        finally:
            attempt.turns.append(list(request.completion))
            if request.expert_ids:
                known = sum(map(len, attempt.expert_ids))
                attempt.expert_ids.append(np.concatenate(request.expert_ids)[known:])
            attempt.seconds["generating"] += self._clock.now() - start
        assert request.finish_reason is not None
        return request.completion, request.finish_reason

    async def _finished(self, request: Request) -> None:
        """Waits for a request's end; raises ``_Ended`` where it is none of the model's."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def told(request: Request) -> None:
            if request.finish_reason is not None:
                loop.call_soon_threadsafe(ended.set)

        try:
            await asyncio.wrap_future(self.thread.submit(request, told))
        except Exception as error:
            if self.thread.is_alive and not isinstance(error, UnavailableError):
                raise
            raise _Ended(Status.ENGINE, str(error)) from error
        try:
            await ended.wait()
        except asyncio.CancelledError:
            self.thread.abort(request)
            raise
        if request.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
            raise _Ended(Status.ENGINE, str(request.error or "the engine was stopped"))

    async def _call(self, attempt: _Attempt, kind: str, function: Callable[[], Result]) -> Result:
        """An environment's answer, within its time."""
        async with self._places:
            start = self._clock.now()
            try:
                async with asyncio.timeout(self._config.call_seconds):
                    return await _in_thread(function)
            except TimeoutError as error:
                seconds = self._config.call_seconds
                raise _Ended(Status.TIMEOUT, f"no answer within {seconds:g} s") from error
            except EnvironmentFailedError as error:
                raise _Ended(Status.ENVIRONMENT, str(error)) from error
            except Exception as error:  # one environment's fault is told and counted, ends no other
                raise _Ended(Status.ENVIRONMENT, f"{type(error).__name__}: {error}") from error
            finally:
                attempt.seconds[kind] += self._clock.now() - start

    def _record(
        self, attempt: _Attempt, status: Status, reason: str, score: Score | None
    ) -> Rollout:
        conversation = attempt.conversation
        length = len(conversation.ids)
        logprobs_T = np.full(length, np.nan, dtype=np.float32)
        versions_T = np.full(length, -1, dtype=np.int64)
        # A turn in whose middle the engine failed is no part of the conversation.
        for (start, end), sampled in zip(conversation.sampled, attempt.turns, strict=False):
            assert conversation.ids[start:end] == tuple(token.token_id for token in sampled)
            logprobs_T[start:end] = [token.sampled_logprob for token in sampled]
            versions_T[start:end] = [token.weight_version for token in sampled]
        reward = score.value if score is not None else 0.0
        return Rollout(
            attempt.environment.name,
            attempt.task,
            attempt.number,
            np.array(conversation.ids, dtype=np.int64),
            versions_T >= 0,
            logprobs_T,
            attempt.temperature,
            versions_T,
            status,
            reason,
            score,
            -self._config.truncated if status is Status.TRUNCATED else reward,
            conversation.messages,
            dict(attempt.seconds),
            np.concatenate(attempt.expert_ids)[:length] if attempt.expert_ids else None,
        )


def _extended(start: Conversation, episode: Episode) -> Conversation:
    try:
        return start.extended(episode.opening)
    except ConversationError as error:
        raise _Ended(Status.ENVIRONMENT, f"its opening makes no conversation: {error}") from error


async def _in_thread(function: Callable[[], Result]) -> Result:
    """Runs it in a thread of its own, which a caller that gives up leaves behind."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(result: Sequence[Result], error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result[0])

    def run() -> None:
        told: tuple[Sequence[Result], BaseException | None]
        try:
            told = [function()], None
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            told = (), error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left
            loop.call_soon_threadsafe(tell, *told)

    threading.Thread(target=run, daemon=True).start()
    return await future
