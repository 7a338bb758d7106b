"""The environment ``code``: functions to be written, and hidden tests that decide.

The reply has the function in a block of Python. It runs in the sandbox (``examiner.py``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any

from selenite.agent.randomness import stream
from selenite.rl.gym.code import algorithms, loops, simple
from selenite.rl.gym.code.examiner import Case, Examiner
from selenite.rl.gym.code.problem import Arguments, Problem
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, Score
from selenite.types import Message, ToolSpec

KINDS: Mapping[int, Sequence[Callable[[Random], Problem]]] = {
    1: simple.KINDS,
    2: loops.KINDS,
    3: algorithms.KINDS,
}
"""By level."""

NUM_EXAMPLES, NUM_TESTS = 2, 40
_TRIES = 400
_HELD_OUT_SHARE = 5  # one function in so many is of evaluation alone
_FORM = "Reply with the whole function in one block that begins with ```python and ends with ```."
_HALF = re.compile(r"[\ud800-\udfff]")
_BLOCK = re.compile(r"^```[ \t]*(\w*)[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class CodeTask:
    """A function to be written. Equal numbers give equal tasks."""

    problem: Problem
    examples: tuple[Case, ...]  # shown
    tests: tuple[Case, ...]  # hidden; none of them is an example

    @property
    def text(self) -> str:
        """What the model is told."""
        shown = [f"{call} == {value!r}" for case in self.examples for call, value in case.seen]
        return "\n".join(
            [
                *("Write a Python function.", self.problem.text),
                *("```python", self.problem.signature, "    ...", "```"),
                *("Examples:", *shown, _FORM),
            ]
        )


class Functions:
    """The environment.

    Args:
        level: 1 (an expression) to 3 (a small algorithm).
        seed: of the tasks.
        tokens: that an attempt may write.

    Raises ``ConfigError`` where this machine has no sandbox.
    """

    name = "code"

    def __init__(self, level: int, seed: int = 0, tokens: int = 512) -> None:
        self.budget = Budget(tokens)
        self._level, self._seed = level, seed
        self._examiner = Examiner()

    def begin(self, number: int) -> Written:
        """See ``Environment``. No function of a task from ``HELD_OUT`` on is one of training."""
        return Written(self.task(number), self._examiner)

    def task(self, number: int) -> CodeTask:
        """The task of a number."""
        rng = stream(self._seed, "code", self._level, number)
        for _ in range(_TRIES):
            problem = rng.choice(KINDS[self._level])(rng)
            digest = sha256(problem.reference.encode()).digest()
            if (digest[0] % _HELD_OUT_SHARE == 0) == (number >= HELD_OUT):
                return make_task(problem, rng)
        raise AssertionError(f"no function for task {number} of level {self._level}")


def make_task(problem: Problem, rng: Random) -> CodeTask:
    """Examples with different values, and tests."""
    drawn = {repr(arguments): arguments for arguments in (problem.draw(rng) for _ in range(_TRIES))}
    calls = list(islice(drawn.values(), NUM_EXAMPLES + NUM_TESTS))
    answers = problem.answers(calls)
    assert len({repr(answer) for answer in answers}) > NUM_EXAMPLES, problem.reference
    by_value = {repr(answer): place for place, answer in reversed(list(enumerate(answers)))}
    shown = sorted(  # those that show most: neither nothing nor what was given
        by_value.values(),
        key=lambda place: (not answers[place], answers[place] in calls[place], place),
    )[:NUM_EXAMPLES]
    cases = [
        _case(problem.name, arguments, answer)
        for arguments, answer in zip(calls, answers, strict=True)
    ]
    return CodeTask(
        problem,
        tuple(cases[place] for place in shown),
        tuple(case for place, case in enumerate(cases) if place not in shown),
    )


def _case(name: str, arguments: Arguments, answer: Any) -> Case:
    assert json.loads(json.dumps([arguments, answer])) == [list(arguments), answer]
    call = f"{name}({', '.join(map(repr, arguments))})"
    return Case(call, f"from solution import {name}\nsee({call})", ((call, answer),))


def block(reply: str) -> str | Check:
    """The reply's block of Python, or why there is none. Other blocks may stand beside it."""
    found = [code for language, code in _BLOCK.findall(reply) if language in ("python", "py")]
    if len(found) != 1:
        return Check("form", 0.0, f"{len(found)} blocks of Python instead of one")
    if _HALF.search(found[0]):
        return Check("form", 0.0, "it has half of a surrogate pair, which is no text")
    return found[0]


class Written:
    """An attempt at a function."""

    def __init__(self, task: CodeTask, examiner: Examiner) -> None:
        self._task, self._examiner = task, examiner
        self._reply = ""
        self.opening: Sequence[Message] = (Message("user", task.text),)
        self.tools: Sequence[ToolSpec] = ()

    def reply(self, turn: Message) -> Sequence[Message]:
        """Nothing follows."""
        self._reply = turn.content
        return ()

    def score(self) -> Score:
        """By all hidden tests. Raises ``EnvironmentFailedError`` where the sandbox fails."""
        code = block(self._reply)
        if isinstance(code, Check):
            return Score((code,))
        name = self._task.problem.name
        loads = Case("loads", f"from solution import {name}", ())
        loaded, *others = self._examiner.faults({"solution.py": code}, [loads, *self._task.tests])
        faults = [fault for fault in others if fault]
        reason = f"{len(faults)} of {len(others)} fail: {faults[0]}" if faults else ""
        return Score(
            (
                Check("form", 1.0),
                Check("runs", float(not loaded), loaded),
                Check("hidden tests", float(not faults), reason),
            )
        )
