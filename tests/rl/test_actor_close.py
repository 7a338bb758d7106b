"""Episodes that hold something are closed, whatever the end of their attempt: here one that has a
process, whose end is looked for outside of the actor."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.model.hf_adapter import load_pretrained
from selenite.rl.actor import Actor, ActorConfig
from selenite.rl.gym.environment import Budget, Check, EnvironmentFailedError, Score
from selenite.rl.rollout import Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread
from selenite.types import Message, ToolSpec
from tests.fixtures.server import make_model


class Held:
    """An attempt with a process that ends when it is told to."""

    def __init__(self, ends_at: str) -> None:
        self._ends_at = ends_at
        command = [sys.executable, "-S", "-E", "-c", "input()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)
        self.closed = 0
        self.opening: Sequence[Message] = (Message("user", "Go on."),)
        self.tools: Sequence[ToolSpec] = ()

    def reply(self, turn: Message) -> Sequence[Message]:
        if self._ends_at == "reply":
            raise EnvironmentFailedError("it broke")
        if self._ends_at == "hang":
            self.process.wait()  # until it is closed
        return ()

    def score(self) -> Score:
        if self._ends_at == "score":
            raise ZeroDivisionError("a grader's bug")
        return Score((Check("done", 1.0),))

    def close(self) -> None:
        self.closed += 1
        self.process.communicate("\n")
        if self._ends_at == "close":
            raise OSError("the directory is gone")


@dataclass
class Holding:
    """An ``Environment`` that remembers its attempts. ``may_begin``: they wait for it."""

    ends_at: str = ""
    budget: Budget = field(default=Budget(tokens=400))
    name: str = "holding"
    begun: list[Held] = field(default_factory=list)
    may_begin: threading.Event = field(default_factory=threading.Event)

    def begin(self, number: int) -> Held:
        assert self.may_begin.wait(30)
        self.begun.append(Held(self.ends_at))
        return self.begun[-1]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("closing"))


@pytest.fixture
def thread(directory: Path) -> Iterator[EngineThread]:
    thread = EngineThread(
        Engine(load_pretrained(directory), EngineConfig(num_pages=600, max_running=16))
    )
    thread.start()
    yield thread
    thread.stop()


def make_actor(thread: EngineThread, directory: Path, seconds: float = 20.0) -> Actor:
    tokenizer = Tokenizer.load(directory)
    profile, _ = detect_profile(tokenizer)
    return Actor([thread], tokenizer, profile, ActorConfig(call_seconds=seconds))


def all_ended(environment: Holding) -> bool:
    return all(held.process.poll() is not None for held in environment.begun)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


@pytest.mark.parametrize(
    ("ends_at", "status"),
    [
        ("", Status.DONE),
        ("reply", Status.ENVIRONMENT),
        ("score", Status.ENVIRONMENT),
        ("close", Status.DONE),
        ("hang", Status.TIMEOUT),
        ("budget", Status.TRUNCATED),
    ],
)
def test_an_episode_is_closed_once_whatever_its_end(
    thread: EngineThread, directory: Path, ends_at: str, status: Status
) -> None:
    tokens = 2 if ends_at == "budget" else 600  # an untrained model ends once in 200
    environment = Holding(ends_at, Budget(tokens))
    environment.may_begin.set()
    actor = make_actor(thread, directory, 1.0 if ends_at == "hang" else 20.0)
    found = asyncio.run(actor.group(Assigned(environment, 3), 4, 0, 1.0))
    assert status in {rollout.status for rollout in found}
    assert {rollout.status for rollout in found} <= {status, Status.TRUNCATED}
    assert [held.closed for held in environment.begun] == [1] * 4
    assert all_ended(environment)


def test_attempts_that_are_cancelled_are_closed(thread: EngineThread, directory: Path) -> None:
    environment = Holding(budget=Budget(tokens=3000))
    environment.may_begin.set()
    actor = make_actor(thread, directory)

    async def cancelled() -> None:
        group = asyncio.ensure_future(actor.group(Assigned(environment, 3), 3, 0, 1.0))
        while not thread.engine.scheduler.running:
            await asyncio.sleep(0.001)
        group.cancel()
        await asyncio.gather(group, return_exceptions=True)
        while thread.engine.scheduler.running:  # it tells this loop of their end
            await asyncio.sleep(0.001)

    asyncio.run(cancelled())
    wait_for(lambda: all_ended(environment))
    assert environment.begun


def test_an_episode_that_begins_too_late_is_closed(thread: EngineThread, directory: Path) -> None:
    environment = Holding()
    actor = make_actor(thread, directory, 0.2)

    async def late() -> list[Rollout]:
        found = await actor.group(Assigned(environment, 3), 2, 0, 1.0)
        environment.may_begin.set()
        while len(environment.begun) < 2 or not all_ended(environment):
            await asyncio.sleep(0.01)
        return found

    assert {rollout.status for rollout in asyncio.run(late())} == {Status.TIMEOUT}


def test_an_episode_that_begins_after_the_loop_is_closed(
    thread: EngineThread, directory: Path
) -> None:
    environment = Holding()
    actor = make_actor(thread, directory, 0.2)
    asyncio.run(actor.group(Assigned(environment, 3), 2, 0, 1.0))
    environment.may_begin.set()
    wait_for(lambda: len(environment.begun) == 2 and all_ended(environment))
