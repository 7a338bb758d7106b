"""The environment ``repositories``: a small repository with a bug, and tools to find and mend it.

    library ─► proven bug ─► list_files, read_file, replace, run_tests ... ─► a reply without a call
                                                │
       files that the model changed ◄───────────┘ ─► clean sandbox, our tests, hidden ones ─► score

The files are kept here and not in a sandbox: nothing that a run of the tests does changes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from selenite.agent.randomness import stream
from selenite.rl.gym.code.examiner import STOPPED, Examiner
from selenite.rl.gym.code.mutants import Mutant, mutants
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, Score
from selenite.rl.gym.repositories.library import (
    HELD_OUT_LIBRARIES,
    TRAINING,
    Library,
    is_test,
    library,
)
from selenite.types import Message, ToolCall, ToolSpec

_TRIES = 200
_HALF = re.compile(r"[\ud800-\udfff]")  # of a surrogate pair, which is no text


def _tool(name: str, text: str, **parameters: str) -> ToolSpec:
    properties = {key: {"type": "string", "description": what} for key, what in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return ToolSpec(name, text, schema)


_PATH = "Of a file, as list_files gives it."
TOOLS = (
    _tool("list_files", "Lists the files of the repository."),
    _tool("read_file", "Shows a file.", path=_PATH),
    _tool(
        "replace",
        "Replaces a text in a file that holds no tests. It must occur there exactly once.",
        path=_PATH,
        old="The text to be replaced, with its spaces and line breaks.",
        new="The text to be there instead.",
    ),
    _tool("run_tests", "Runs the tests and says which ones fail; once a turn."),
)
_PARAMETERS = {tool.name: set(tool.parameters["required"]) for tool in TOOLS}


@dataclass(frozen=True)
class Bug:
    """A mistake in a module."""

    path: str
    mutant: Mutant


@dataclass(frozen=True)
class Repair:
    """A task: a library with bugs. Equal numbers give equal tasks.

    ``faults`` says of each visible test what is wrong at the beginning; "": it passes.
    """

    library: Library
    bugs: tuple[Bug, ...]
    faults: tuple[str, ...]
    names_the_file: bool

    @property
    def files(self) -> dict[str, str]:
        """The repository at the beginning."""
        return {**_broken(self.library, self.bugs), **self.library.tests}

    @property
    def text(self) -> str:
        """What the model is told."""
        where = f" The mistake is in {self.bugs[0].path}." if self.names_the_file else ""
        return (
            "Some tests of a small Python repository fail, and the tests are right. Find what is "
            f"wrong in the code and mend it.{where} Do not change what already works. Reply "
            f"without a call when you are done.\n{_report(self.library, self.faults)}"
        )


class Repositories:
    """The environment.

    Args:
        level: 1: one mistake, whose file is named; 2: its file is not; 3: two mistakes.
        seed: of the tasks.
        budget: of an attempt.

    Raises ``ConfigError`` where this machine has no sandbox.
    """

    name = "repositories"

    def __init__(self, level: int, seed: int = 0, budget: Budget | None = None) -> None:
        self.budget = budget or Budget(tokens=1024, turns=16)
        self._level, self._seed = level, seed
        self._examiner = Examiner()
        self._proven = dict[tuple[str, tuple[Bug, ...]], tuple[str, ...] | None]()

    def begin(self, number: int) -> Repairing:
        """See ``Environment``. Tasks from ``HELD_OUT`` on are of libraries that training never
        has. Raises ``EnvironmentFailedError`` where the sandbox fails."""
        return Repairing(self.task(number), self._examiner)

    def task(self, number: int) -> Repair:
        """The task of a number. Raises ``EnvironmentFailedError`` where the sandbox fails."""
        rng = stream(self._seed, "repositories", self._level, number)
        found = library(rng.choice(HELD_OUT_LIBRARIES if number >= HELD_OUT else TRAINING))
        candidates = [
            Bug(path, mutant) for path, text in found.modules.items() for mutant in mutants(text)
        ]
        for _ in range(_TRIES):
            bugs = self._drawn(found, candidates, rng)
            faults = self._proof(found, bugs)
            if faults is not None:
                return Repair(found, bugs, faults, names_the_file=self._level == 1)
        raise AssertionError(f"{found.name}: its tests find none of {_TRIES} mistakes")

    def _drawn(self, found: Library, candidates: list[Bug], rng: Random) -> tuple[Bug, ...]:
        """A bug, or two of which each is one by itself and that do not overlap."""
        if self._level < 3:
            return (rng.choice(candidates),)
        one, other = rng.sample(candidates, 2)
        while (
            _overlap(one, other)
            or not self._proof(found, (one,))
            or not self._proof(found, (other,))
        ):
            one, other = rng.sample(candidates, 2)
        return one, other

    def _proof(self, found: Library, bugs: tuple[Bug, ...]) -> tuple[str, ...] | None:
        """What is wrong with each visible test; None for what is no good bug: some tests that are
        shown must fail and some pass, a hidden one must fail, and all must end."""
        key = (found.name, bugs)
        if key not in self._proven:
            shown = len(found.visible)
            faults = self._examiner.faults(_broken(found, bugs), [*found.visible, *found.hidden])
            is_good = (
                any(faults[:shown])
                and not all(faults[:shown])
                and any(faults[shown:])
                and not any(fault.startswith(STOPPED) for fault in faults)
            )
            self._proven[key] = tuple(faults[:shown]) if is_good else None
        return self._proven[key]


def _overlap(one: Bug, other: Bug) -> bool:
    a, b = one.mutant, other.mutant
    return one.path == other.path and a.start <= b.end and b.start <= a.end


def _broken(found: Library, bugs: Sequence[Bug]) -> dict[str, str]:
    """The modules with bugs; those further down first, so that places stay right."""
    modules = dict(found.modules)
    for bug in sorted(bugs, key=lambda bug: -bug.mutant.start):
        modules[bug.path] = bug.mutant.applied(modules[bug.path])
    return modules


def _report(found: Library, faults: Sequence[str]) -> str:
    failing = [
        f"{case.name}: {fault}" for case, fault in zip(found.visible, faults, strict=True) if fault
    ]
    return "\n".join([f"{len(failing)} of {len(faults)} tests fail.", *failing])


class Repairing:
    """An attempt at a repository."""

    def __init__(self, task: Repair, examiner: Examiner) -> None:
        self._task, self._examiner = task, examiner
        self._files = task.files
        self.opening: Sequence[Message] = (Message("user", task.text),)
        self.tools: Sequence[ToolSpec] = TOOLS

    def reply(self, turn: Message) -> Sequence[Message]:
        """Results of all calls. Raises ``EnvironmentFailedError`` where the sandbox fails."""
        has_run = False
        results = []
        for call in turn.tool_calls:
            if call.name == "run_tests" and has_run:
                result = "error: run_tests runs once a turn"
            else:
                result = self._answer(call)
            has_run |= call.name == "run_tests"
            results.append(Message("tool", result, tool_call_id=call.id))
        return results

    def score(self) -> Score:
        """By our tests, whatever became of those in the repository. Raises
        ``EnvironmentFailedError`` where the sandbox fails."""
        found, shown = self._task.library, len(self._task.library.visible)
        faults = self._faults(hidden=True)
        at_first = self._task.faults
        parts = {
            "failing tests": [now for was, now in zip(at_first, faults, strict=False) if was],
            "passing tests": [now for was, now in zip(at_first, faults, strict=False) if not was],
            "hidden tests": faults[shown:],
        }
        assert len(faults) == shown + len(found.hidden)
        return Score(tuple(_check(name, part) for name, part in parts.items()))

    def _faults(self, *, hidden: bool) -> list[str]:
        found = self._task.library
        modules = {path: text for path, text in self._files.items() if not is_test(path)}
        return self._examiner.faults(modules, [*found.visible, *(found.hidden if hidden else ())])

    def _answer(self, call: ToolCall) -> str:
        given = _arguments(call)
        if isinstance(given, str):
            return given
        match call.name:
            case "list_files":
                return "\n".join(sorted(self._files))
            case "run_tests":
                return _report(self._task.library, self._faults(hidden=False))
        path = given["path"]
        if path not in self._files:
            return f"error: there is no file {path!r:.100}; list_files says which there are"
        if call.name == "read_file":
            return self._files[path]
        return self._replaced(path, given["old"], given["new"])

    def _replaced(self, path: str, old: str, new: str) -> str:
        if is_test(path):
            return "error: the tests are right and stay as they are"
        count = self._files[path].count(old) if old else 0
        if count != 1:
            return f"error: old occurs {count} times in {path} instead of once"
        self._files[path] = self._files[path].replace(old, new)
        return f"replaced in {path}"


def _arguments(call: ToolCall) -> Mapping[str, str] | str:
    """Of a call, or what is wrong with it."""
    wanted = _PARAMETERS.get(call.name)
    if wanted is None:
        return f"error: there is no tool {call.name!r:.100}"
    try:
        given = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or given.keys() != wanted:
        return (
            f"error: {call.name} takes a JSON object with {', '.join(sorted(wanted)) or 'nothing'}"
        )
    if any(not isinstance(value, str) or _HALF.search(value) for value in given.values()):
        return f"error: the arguments of {call.name} are texts"
    return given


def _check(name: str, faults: Sequence[str]) -> Check:
    wrong = [fault for fault in faults if fault]
    reason = f"{len(wrong)} of {len(faults)} fail: {wrong[0]}" if wrong else ""
    return Check(name, float(not wrong), reason)
