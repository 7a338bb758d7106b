"""Rollouts over the real engine: ids, log-probabilities, ends, and weights that change beneath."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import log_softmax
from selenite.rl.actor import Actor, ActorConfig
from selenite.rl.gym.environment import Budget, Check, Environment, EnvironmentFailedError, Score
from selenite.rl.rollout import Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread
from selenite.types import Message, ToolSpec
from tests.fixtures.server import make_model

AWKWARD = ("\ud7ff🙂\u0000", "é" * 7, "<|im_end|>", "{}", " \n\n ", "½<|tool_call_begin|>")


@dataclass
class Talk:
    """An episode of several turns: whatever is said, more awkward text follows."""

    task: int
    turns: int
    fails_at: str = ""
    said: list[Message] = field(default_factory=list)
    tools: Sequence[ToolSpec] = (ToolSpec("say", "Says it.", {"type": "object"}),)

    @property
    def opening(self) -> Sequence[Message]:
        return (Message("user", f"Task {self.task} {AWKWARD[self.task % len(AWKWARD)]}"),)

    def reply(self, turn: Message) -> Sequence[Message]:
        if self.fails_at == "reply":
            raise EnvironmentFailedError("its disk is full")
        if self.fails_at == "hang":
            threading.Event().wait(30)
        self.said.append(turn)
        if len(self.said) == self.turns:
            return ()
        results = tuple(
            Message("tool", AWKWARD[len(self.said) % len(AWKWARD)], tool_call_id=call.id)
            for call in turn.tool_calls
        )
        return results or (Message("user", AWKWARD[(self.task + 1) % len(AWKWARD)]),)

    def score(self) -> Score:
        if self.fails_at == "score":
            raise ZeroDivisionError("a grader's bug")
        return Score((Check("talked", 0.5),))


@dataclass(frozen=True)
class Talks:
    """An ``Environment``."""

    turns: int = 3
    budget: Budget = field(default=Budget(tokens=60, turns=4))
    fails_at: str = ""
    name: str = "talks"

    def begin(self, number: int) -> Talk:
        if self.fails_at == "begin":
            raise EnvironmentFailedError("it is not there")
        return Talk(number, self.turns, self.fails_at)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("actor"))


@pytest.fixture(scope="module")
def model(directory: Path) -> Transformer:
    return load_pretrained(directory)


@pytest.fixture
def thread(model: Transformer) -> Iterator[EngineThread]:
    thread = EngineThread(Engine(model, EngineConfig(num_pages=600, max_running=16)))
    thread.start()
    yield thread
    thread.stop()


def make_actor(thread: EngineThread, directory: Path, **settings: float) -> Actor:
    tokenizer = Tokenizer.load(directory)
    profile, _ = detect_profile(tokenizer)
    return Actor([thread], tokenizer, profile, ActorConfig.model_validate(settings))


def rollouts(
    actor: Actor,
    environment: Environment,
    tasks: Sequence[int],
    size: int = 2,
    seed: int = 0,
    temperature: float = 1.0,
) -> list[Rollout]:
    async def all_of_them() -> list[Rollout]:
        groups = [
            actor.group(Assigned(environment, task), size, seed, temperature) for task in tasks
        ]
        return [rollout for group in await asyncio.gather(*groups) for rollout in group]

    return asyncio.run(all_of_them())


def test_what_is_trained_is_what_was_sampled_with_its_log_probability(
    thread: EngineThread, model: Transformer, directory: Path
) -> None:
    temperature = 0.7
    actor = make_actor(thread, directory)
    found = rollouts(actor, Talks(), range(12), temperature=temperature)
    assert {rollout.status for rollout in found} <= {Status.DONE, Status.TRUNCATED}
    for rollout in found:
        length = len(rollout.token_ids_T)
        positions_T = torch.arange(length)
        context = packed_context([length])
        with torch.no_grad():
            hidden_TD = model(
                torch.from_numpy(rollout.token_ids_T), context.positions_T, context
            ).hidden_TD
            logprobs_TV = log_softmax(model.logits(hidden_TD) / temperature)
        rows = np.flatnonzero(rollout.is_sampled_T)
        assert rows[0] > 0
        chosen = logprobs_TV[positions_T[rows - 1], torch.from_numpy(rollout.token_ids_T[rows])]
        np.testing.assert_allclose(rollout.engine_logprobs_T[rows], chosen, atol=1e-4)
        assert np.isnan(rollout.engine_logprobs_T[~rollout.is_sampled_T]).all()
        assert (rollout.weight_version_T == np.where(rollout.is_sampled_T, 0, -1)).all()
        assert rollout.num_sampled <= 60


def test_many_turns_are_done_or_cut_and_pay(thread: EngineThread, directory: Path) -> None:
    actor = make_actor(thread, directory, truncated=0.25)
    # An untrained model ends a turn about once in 200 tokens.
    found = rollouts(actor, Talks(2, Budget(tokens=500, turns=4)), range(6), size=3)
    assert [(r.task, r.number) for r in found] == [(t, n) for t in range(6) for n in range(3)]
    for rollout in found:
        is_done = rollout.status is Status.DONE
        assert rollout.reward == (0.5 if is_done else -0.25)
        assert bool(rollout.reason) != is_done
        assert rollout.messages[0].role == "user"
    assert {rollout.status for rollout in found} == {Status.DONE, Status.TRUNCATED}
    # Too many turns are the model's fault, too.
    (long,) = rollouts(make_actor(thread, directory), Talks(9, Budget(4000, 2)), [1], size=1)
    assert long.status is Status.TRUNCATED
    assert "2 turns" in long.reason


def test_the_same_seed_is_the_same_rollout_whatever_runs_beside(
    thread: EngineThread, directory: Path
) -> None:
    together = rollouts(make_actor(thread, directory), Talks(), range(8))
    alone = rollouts(make_actor(thread, directory), Talks(), [5])
    other = rollouts(make_actor(thread, directory), Talks(), [5], seed=1)
    for a, b, c in zip(together[10:12], alone, other, strict=True):
        np.testing.assert_array_equal(a.token_ids_T, b.token_ids_T)
        assert a.token_ids_T.tolist() != c.token_ids_T.tolist()
    assert alone[0].token_ids_T.tolist() != alone[1].token_ids_T.tolist()


@pytest.mark.parametrize(
    ("fails_at", "status", "reason"),
    [
        ("begin", Status.ENVIRONMENT, "it is not there"),
        ("reply", Status.ENVIRONMENT, "its disk is full"),
        ("score", Status.ENVIRONMENT, "ZeroDivisionError: a grader's bug"),
        ("hang", Status.TIMEOUT, "within 0.3 s"),
    ],
)
def test_a_failing_environment_is_told_and_is_no_reward_of_zero(
    thread: EngineThread, directory: Path, fails_at: str, status: Status, reason: str
) -> None:
    actor = make_actor(thread, directory, call_seconds=0.3)
    budget = Budget(tokens=600, turns=4)
    found = rollouts(actor, Talks(1, budget, fails_at), [1, 2], size=2)
    failed = [rollout for rollout in found if rollout.status is not Status.TRUNCATED]
    assert failed
    for rollout in failed:
        assert (rollout.status, rollout.score) == (status, None)
        assert reason in rollout.reason
    # The engine is free for others.
    assert not thread.engine.scheduler.running
    assert rollouts(make_actor(thread, directory), Talks(1), [3], size=1)


def test_weights_that_change_beneath_are_named_token_by_token(
    thread: EngineThread, model: Transformer, directory: Path
) -> None:
    other = load_pretrained(directory)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    actor = make_actor(thread, directory)
    budget = Budget(tokens=400, turns=4)

    async def with_a_swap() -> list[Rollout]:
        groups = [
            asyncio.ensure_future(actor.group(Assigned(Talks(4, budget), task), 2, 0, 1.0))
            for task in range(4)
        ]
        while not any(len(request.completion) > 5 for request in thread.engine.scheduler.running):
            await asyncio.sleep(0.001)
        await asyncio.wrap_future(thread.pause())
        await asyncio.wrap_future(thread.swap_weights(other, 7, "recompute"))
        await asyncio.wrap_future(thread.resume())
        return [rollout for group in await asyncio.gather(*groups) for rollout in group]

    found = asyncio.run(with_a_swap())
    versions = [rollout.weight_version_T[rollout.is_sampled_T] for rollout in found]
    assert any(set(own) == {0, 7} for own in versions)
    for own, rollout in zip(versions, found, strict=True):
        assert (np.diff(own) >= 0).all()
        assert rollout.oldest_version == own.min()


def test_a_stopped_engine_ends_what_runs(directory: Path, model: Transformer) -> None:
    thread = EngineThread(Engine(model, EngineConfig(num_pages=600, max_running=16)))
    thread.start()
    actor = make_actor(thread, directory)

    async def stopped() -> list[Rollout]:
        group = asyncio.ensure_future(
            actor.group(Assigned(Talks(9, Budget(3000, 9)), 1), 3, 0, 1.0)
        )
        while not thread.engine.scheduler.running:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(thread.stop)
        return await group

    for rollout in asyncio.run(stopped()):
        assert rollout.status is Status.ENGINE
        assert rollout.score is None
