"""Lets a model act: episodes of environments over the serving engine, many at once.

    for each rollout:  opening ─► engine ─► turn ─► environment ─► engine ... ─► score

Everything waits in one asyncio loop; the engine and the environments run in threads of their own. A
rollout's ids only grow: what was sampled is never encoded again. An engine that is paused, given
other weights and resumed goes on in the middle of a token's neighbours; each token says which
weights drew it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from selenite.rl.critic.judge import Judge, Judged
from selenite.rl.engines import RolloutEngine, finished
from selenite.rl.gym.environment import (
    Budget,
    Environment,
    EnvironmentFailedError,
    Episode,
    Score,
    close,
)
from selenite.rl.rollout import Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.serve.engine.request import Request, SampledToken
from selenite.types import FinishReason, SamplingParams

logger = logging.getLogger(__name__)
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

    engine: RolloutEngine
    environment: Environment
    task: int
    budget: Budget
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
        engines: with the same weights; a group is one engine's, which computes its beginning once.
        tokenizer: the model's, with its template.
        profile: how the model talks.
        config: how rollouts are made.
        wants_routing: rollouts say which experts computed them, which the engines record.
        judge: gives the rewards of environments that are ``Judged``.
    """

    def __init__(
        self,
        engines: Sequence[RolloutEngine],
        tokenizer: Tokenizer,
        profile: ChatProfile,
        config: ActorConfig,
        wants_routing: bool = False,
        judge: Judge | None = None,
    ) -> None:
        self._engines = engines
        self._num_groups = dict.fromkeys(engines, 0)  # that each has now
        self._tokenizer, self._profile = tokenizer, profile
        self._config, self._wants_routing, self._judge = config, wants_routing, judge
        self._ends = frozenset(profile.stop_ids(tokenizer))
        self._places = asyncio.Semaphore(config.calls_at_once)

    @property
    def _clock(self) -> Clock:
        return self._engines[0].clock

    def resume(self) -> None:
        """All engines run steps again."""
        for done in [engine.resume() for engine in self._engines]:
            done.result()

    def pause(self) -> None:
        """No engine runs steps until ``resume``; rollouts stay where they are."""
        for done in [engine.pause() for engine in self._engines]:
            done.result()

    async def group(
        self, task: Assigned, size: int, seed: int, temperature: float, limit: int | None = None
    ) -> list[Rollout]:
        """``size`` attempts at one task; the same for the same seed and weights.

        An attempt is cut at ``limit`` tokens that the model wrote, where the environment's budget
        allows more.
        """
        leader: asyncio.Future[Request | None] = asyncio.get_running_loop().create_future()
        own_seed = int.from_bytes(
            hashlib.sha256(
                f"{seed}/{task.environment.name}/{task.number}/{task.visit}".encode()
            ).digest()[:8]
        )
        budget = task.environment.budget
        if limit is not None:
            budget = dataclasses.replace(budget, tokens=min(limit, budget.tokens))
        with self._engine() as engine:
            attempts = [
                _Attempt(
                    *(engine, task.environment, task.number, budget, number, own_seed),
                    *(temperature, leader, Conversation.start(self._tokenizer, (), self._profile)),
                )
                for number in range(size)
            ]
            rollouts = list(await asyncio.gather(*map(self._rollout, attempts)))
        if self._judge is None:
            return rollouts
        is_judged = isinstance(task.environment, Judged)
        return await self._judge.assess(rollouts, own_seed, is_judged)

    @contextmanager
    def _engine(self) -> Iterator[RolloutEngine]:
        """The engine for a group: the one that has the fewest."""
        alive = [engine for engine in self._engines if engine.is_alive]
        if not alive:
            raise UnavailableError("no engine is left to act; the log says why they ended")
        engine = min(alive, key=self._num_groups.__getitem__)
        self._num_groups[engine] += 1
        try:
            yield engine
        finally:
            self._num_groups[engine] -= 1

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
            await self._close(attempt)
        return self._record(attempt, status, reason, score)

    async def _play(self, attempt: _Attempt) -> None:
        """To the episode's end; raises ``_Ended`` for any other."""
        begin = partial(attempt.environment.begin, attempt.task)
        attempt.episode = await self._call(attempt, "tools", begin, unwanted=close)
        episode = attempt.episode
        start = Conversation.start(self._tokenizer, episode.tools, self._profile)
        attempt.conversation = _extended(start, episode)
        budget = attempt.budget
        for _ in range(budget.turns):
            sampled, finish = await self._turn(attempt)
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

    async def _turn(self, attempt: _Attempt) -> tuple[list[SampledToken], FinishReason]:
        """One turn of the model, at most as long as budget and context allow."""
        prompt = tuple(attempt.conversation.prompt_ids())
        most = attempt.engine.longest - len(prompt)
        room = min(attempt.budget.tokens - attempt.num_sampled, most)
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
            await finished(attempt.engine, request)
        except UnavailableError as error:
            raise _Ended(Status.ENGINE, str(error)) from error
        finally:
            attempt.turns.append(list(request.completion))
            if request.expert_ids:
                known = sum(map(len, attempt.expert_ids))
                attempt.expert_ids.append(np.concatenate(request.expert_ids)[known:])
            attempt.seconds["generating"] += self._clock.now() - start
        assert request.finish_reason is not None
        return request.completion, request.finish_reason

    async def _close(self, attempt: _Attempt) -> None:
        """Ends what an episode holds. What goes wrong is told, and changes no rollout."""
        if attempt.episode is None:
            return
        try:
            async with asyncio.timeout(self._config.call_seconds):
                await _in_thread(partial(close, attempt.episode))
        except Exception:
            logger.exception("%s %d was not closed", attempt.environment.name, attempt.task)

    async def _call(
        self,
        attempt: _Attempt,
        kind: str,
        function: Callable[[], Result],
        unwanted: Callable[[Result], None] | None = None,
    ) -> Result:
        """An environment's answer, within its time. ``unwanted`` gets one that comes later."""
        async with self._places:
            start = self._clock.now()
            try:
                async with asyncio.timeout(self._config.call_seconds):
                    return await _in_thread(function, unwanted)
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


async def _in_thread(
    function: Callable[[], Result], unwanted: Callable[[Result], None] | None = None
) -> Result:
    """Runs it in a thread of its own, which a caller that gives up leaves behind: ``unwanted`` gets
    its result then, in a thread of its own, too."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(result: Sequence[Result], error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            if unwanted is not None and error is None:
                threading.Thread(target=unwanted, args=result, daemon=True).start()
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
        try:
            loop.call_soon_threadsafe(tell, *told)
        except RuntimeError:  # the loop is closed: nobody is left
            if unwanted is not None and told[1] is None:
                unwanted(told[0][0])

    threading.Thread(target=run, daemon=True).start()
    return await future
