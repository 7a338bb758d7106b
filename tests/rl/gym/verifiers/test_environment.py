"""Environments of ``verifiers`` in our loop, in real worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.model.hf_adapter import load_pretrained
from selenite.rl.actor import Actor, ActorConfig
from selenite.rl.gym.config import VerifiersPart
from selenite.rl.gym.environment import HELD_OUT, EnvironmentFailedError
from selenite.rl.gym.verifiers.environment import Verifiers
from selenite.rl.rollout import Status
from selenite.rl.tasks import Assigned
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread
from selenite.types import Message, ToolCall
from tests.fixtures.server import make_model

pytestmark = [pytest.mark.slow, pytest.mark.network]  # an environment of its own is installed


@contextmanager
def opened(python: str, **arguments: Any) -> Iterator[Verifiers]:
    rewards = arguments.pop("rewards", (0, 1))
    part = VerifiersPart(
        python=python, environment="vf-toys", arguments=arguments, rewards=rewards, tokens=3000
    )
    environment = part.open()
    assert isinstance(environment, Verifiers)
    yield environment
    environment.close()


@pytest.fixture(scope="module")
def guesses(python: str) -> Iterator[Verifiers]:
    os.environ["PYTHONPATH"] = str(Path(__file__).with_name("toys"))
    with opened(python, kind="guess") as environment:
        yield environment


def said(text: str) -> Message:
    return Message("assistant", text)


def test_a_question_is_scored_by_the_weighted_rubric(python: str) -> None:
    with opened(python, kind="single", rewards=(-1, 2)) as environment:
        attempt = environment.begin(3)
        opening = [Message("system", "Say a number."), Message("user", "What is 3 + 1?")]
        assert list(attempt.opening) == opening
        assert attempt.reply(said("4")) == ()
        (check,) = attempt.score().checks
        assert check.value == pytest.approx((2 * 1 - 0.01 + 1) / 3)  # -1 .. 2 becomes 0 .. 1
        assert "right 1" in check.reason
        attempt.close()


def test_held_out_rows_are_the_last_tenth_and_training_never_has_them(python: str) -> None:
    with opened(python, kind="single", n=20) as environment:
        numbers = range(100)
        training = {environment.begin(number).opening[-1].content for number in numbers}
        held_out = {environment.begin(HELD_OUT + number).opening[-1].content for number in numbers}
        assert training == {f"What is {number} + 1?" for number in range(18)}
        assert held_out == {"What is 18 + 1?", "What is 19 + 1?"}
    with opened(python, kind="single", n=20, rewards=(0.5, 1)) as environment:
        attempt = environment.begin(0)
        attempt.reply(said("wrong"))
        with pytest.raises(EnvironmentFailedError, match=r"-0\.05 is not in 0\.5 \.\. 1"):
            attempt.score()


def test_tools_are_called_until_none_is(python: str) -> None:
    with opened(python, kind="tools") as environment:
        attempt = environment.begin(3)
        (tool,) = attempt.tools
        assert tool.name == "add"
        assert set(tool.parameters["properties"]) == {"a", "b"}
        calls = (
            ToolCall("add", '{"a": 3, "b": 1}', "functions.add:0"),
            ToolCall("add", '{"a": "x"', "functions.add:1"),
            ToolCall("nothing", "{}", "functions.nothing:2"),
        )
        right, torn, unknown = attempt.reply(Message("assistant", "", tool_calls=calls))
        assert right == Message("tool", "4", tool_call_id="functions.add:0")
        assert torn.tool_call_id == "functions.add:1"
        assert unknown.tool_call_id == "functions.nothing:2"
        assert attempt.reply(said("4")) == ()
        assert attempt.score().value == 1


def test_several_turns_have_their_replies_and_their_end(guesses: Verifiers) -> None:
    attempt = guesses.begin(6)
    (lower,) = attempt.reply(said("9"))
    (higher,) = attempt.reply(said("5"))
    assert (lower, higher) == (Message("user", "Lower."), Message("user", "Higher."))
    assert attempt.reply(said("7")) == ()
    assert attempt.score().value == pytest.approx(1 / 3)


def test_many_attempts_share_one_worker_and_wait_for_each_other(python: str) -> None:
    with opened(python, kind="guess", trick="together", together=8) as environment:

        def play(number: int) -> float:
            attempt = environment.begin(number)
            attempt.reply(said(str(number + 1)))
            return attempt.score().value

        pid = environment.pid
        with ThreadPoolExecutor(8) as pool:  # none goes on before all eight are in
            assert list(pool.map(play, range(8))) == [1.0] * 8
        assert environment.pid == pid


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("raise", "ValueError: it has a bug"),
        ("fail", "SandboxError: no sandbox is left"),
        ("forget", "it changes what was said"),
    ],
)
def test_a_failure_is_one_and_ends_no_other(guesses: Verifiers, words: str, why: str) -> None:
    other, attempt, pid = guesses.begin(1), guesses.begin(2), guesses.pid
    with pytest.raises(EnvironmentFailedError, match=why):
        attempt.reply(said(words))
    attempt.close()
    assert other.reply(said("2")) == ()
    assert other.score().value == 1
    assert guesses.pid == pid


def test_a_reward_function_that_raises_gives_no_reward(python: str) -> None:
    for trick in ("", "in a group"):
        with opened(python, kind="broken", trick=trick) as environment:
            attempt = environment.begin(3)
            assert attempt.reply(said("4")) == ()
            with pytest.raises(EnvironmentFailedError, match="broken: ZeroDivisionError: a grade"):
                attempt.score()


def test_a_worker_that_dies_fails_its_attempts_and_the_next_has_another(guesses: Verifiers) -> None:
    other, attempt, pid = guesses.begin(1), guesses.begin(2), guesses.pid
    with pytest.raises(EnvironmentFailedError, match="exit code 3"):
        attempt.reply(said("die"))
    with pytest.raises(EnvironmentFailedError, match="exit code 3"):
        other.score()
    attempt.close()
    again = guesses.begin(2)
    assert guesses.pid != pid
    assert again.reply(said("3")) == ()
    assert again.score().value == 1
    os.kill(guesses.pid, signal.SIGKILL)
    with pytest.raises(EnvironmentFailedError, match="exit code -9"):
        again.score()


def test_what_cannot_be_played_is_said_when_it_is_opened(python: str) -> None:
    with pytest.raises(ConfigError, match="judges groups"), opened(python, kind="group"):
        pass
    with pytest.raises(ConfigError, match="does not start"), opened("/no/python", kind="single"):
        pass
    part = VerifiersPart(python=python, environment="no-such-thing")
    with pytest.raises(ConfigError, match="Could not import 'no-such-thing'"):
        part.open()


def test_its_process_ends_with_it(python: str) -> None:
    with opened(python, kind="guess") as environment:
        attempt = environment.begin(0)
    with pytest.raises(ProcessLookupError):
        os.kill(environment.pid, 0)
    with pytest.raises(EnvironmentFailedError, match="it was closed"):
        attempt.reply(said("1"))


@pytest.mark.parametrize("words", ["hang", "hang all", "die", "raise"])
def test_the_actor_drops_what_fails_and_times_out_what_hangs(
    python: str, tmp_path: Path, words: str
) -> None:
    directory = make_model(tmp_path)
    thread = EngineThread(Engine(load_pretrained(directory), EngineConfig(num_pages=500)))
    thread.start()
    tokenizer = Tokenizer.load(directory)
    profile, _ = detect_profile(tokenizer)
    actor = Actor([thread], tokenizer, profile, ActorConfig(call_seconds=8))
    try:
        with opened(python, kind="guess") as environment:
            begin = environment.begin

            def trapped(number: int) -> Any:
                attempt = begin(number)
                reply = attempt.reply
                attempt.reply = lambda turn: reply(said(words))  # type: ignore[method-assign]
                return attempt

            environment.begin = trapped  # type: ignore[method-assign]
            rollouts = asyncio.run(actor.group(Assigned(environment, 0, 0), 2, 0, 1.0))
            environment.begin = begin  # type: ignore[method-assign]
            expected = Status.TIMEOUT if "hang" in words else Status.ENVIRONMENT
            assert [rollout.status for rollout in rollouts] == [expected] * 2
            attempt = environment.begin(4)  # whatever happened, the next one is played
            assert attempt.reply(said("5")) == ()
            assert attempt.score().value == 1
    finally:
        thread.stop()
