"""An environment of ``verifiers`` as one of ours: attempts in a worker of the other interpreter.

All attempts of an environment share one worker, which plays them at once. One that died fails its
attempts, and the next attempt starts another.
"""

from __future__ import annotations

import itertools
import json
import math
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selenite.errors import ConfigError
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, EnvironmentFailedError, Score
from selenite.rl.gym.verifiers.messages import message_of, tool_of, turn_lines
from selenite.rl.gym.verifiers.theirs import selenite_lines
from selenite.rl.gym.verifiers.theirs.selenite_lines import Asked, AskedError
from selenite.types import Message, ToolSpec

WORKER = Path(selenite_lines.__file__).with_name("worker.py")
_START_SECONDS = 600.0  # it may download its data
_BEGIN_SECONDS = 300.0
_CLOSE_SECONDS = 10.0


class Attempt:
    """An ``Episode`` in a worker."""

    def __init__(self, worker: Asked, number: int, began: Mapping[str, Any], rewards: Rewards):
        self._worker, self._number, self._rewards = worker, number, rewards
        self.opening: Sequence[Message] = tuple(map(message_of, began["messages"]))
        self.tools: Sequence[ToolSpec] = tuple(map(tool_of, began["tools"]))

    def reply(self, turn: Message) -> Sequence[Message]:
        """What its ``env_response`` says, or nothing where its rollout is completed."""
        answer = _asked(self._worker, "reply", attempt=self._number, turn=turn_lines(turn))
        return tuple(map(message_of, answer["messages"]))

    def score(self) -> Score:
        """The rubric's reward. Raises ``EnvironmentFailedError`` where it is not in the range."""
        answer = _asked(self._worker, "score", attempt=self._number)
        return Score((self._rewards.check(answer["reward"], answer["metrics"]),))

    def close(self) -> None:
        """Cancels it. A worker that does not even do that hangs, and is ended."""
        if not self._worker.is_alive:
            return
        try:
            self._worker.ask("close", _CLOSE_SECONDS, attempt=self._number)
        except (AskedError, TimeoutError):
            self._worker.close()


class Rewards:
    """The range of an environment's rewards, which becomes 0 to 1."""

    def __init__(self, low: float, high: float) -> None:
        assert low < high, (low, high)
        self._low, self._high = low, high

    def check(self, reward: float, metrics: Mapping[str, float]) -> Check:
        """Raises ``EnvironmentFailedError`` for one that is outside."""
        if not (math.isfinite(reward) and self._low <= reward <= self._high):
            raise EnvironmentFailedError(
                f"a reward of {reward:g} is not in {self._low:g} .. {self._high:g}; set rewards to "
                "the least and the most that its rubric gives"
            )
        value = (reward - self._low) / (self._high - self._low)
        told = ", ".join(f"{name} {value:g}" for name, value in metrics.items())
        return Check("reward", value, f"{reward:g} ({told})")


class Verifiers:
    """An ``Environment`` that ``verifiers`` has.

    Numbers are rows of its dataset, modulo its length: of the evaluation set from ``HELD_OUT`` on,
    or, where it has none, of the last tenth of the rows, which training then never sees.

    Args:
        python: the interpreter that has ``verifiers`` and the environment.
        environment: as ``verifiers.load_environment`` takes it.
        arguments: its keyword arguments.
        rewards: the least and the most reward of its rubric.
        budget: of an attempt.

    Raises ``ConfigError`` where it cannot be loaded.
    """

    def __init__(
        self,
        python: str,
        environment: str,
        arguments: Mapping[str, Any],
        rewards: tuple[float, float],
        budget: Budget,
    ) -> None:
        self.name, self.budget = environment, budget
        self._command = (python, str(WORKER), environment, json.dumps(arguments))
        self._rewards = Rewards(*rewards)
        self._numbers = itertools.count()
        self._alone = threading.Lock()
        try:
            self._worker = self._started()
        except EnvironmentFailedError as error:
            raise ConfigError(
                f"environments.environment={environment}: {error}; {python} must have verifiers "
                "and this environment"
            ) from error

    @property
    def pid(self) -> int:
        """Of the worker that new attempts go to."""
        return self._worker.pid

    def begin(self, number: int) -> Attempt:
        """See ``Environment``."""
        with self._alone:
            if not self._worker.is_alive:
                self._worker = self._started()
            worker = self._worker
        attempt = next(self._numbers)
        held_out = number >= HELD_OUT
        row = {
            "split": "held_out" if held_out else "training",
            "number": number - HELD_OUT if held_out else number,
        }
        try:
            began = worker.ask("begin", _BEGIN_SECONDS, attempt=attempt, **row)
        except AskedError as error:
            raise EnvironmentFailedError(str(error)) from error
        except TimeoutError as error:  # nobody has the attempt, to close it
            worker.close()
            raise EnvironmentFailedError(f"no beginning within {_BEGIN_SECONDS:g} s") from error
        return Attempt(worker, attempt, began, self._rewards)

    def close(self) -> None:
        """Ends the worker. It ends with this object, or with our process, too."""
        self._worker.close()

    def _started(self) -> Asked:
        try:
            worker = Asked(self._command)
            weakref.finalize(self, worker.close)
            worker.ask("describe", _START_SECONDS)
        except (AskedError, TimeoutError) as error:
            raise EnvironmentFailedError(str(error)) from error
        return worker


def _asked(worker: Asked, op: str, **fields: Any) -> dict[str, Any]:
    try:
        return worker.ask(op, **fields)
    except AskedError as error:
        raise EnvironmentFailedError(str(error)) from error
