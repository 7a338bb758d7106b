"""Examines code of which nothing is trusted: it runs in the sandbox, and is judged outside.

    files, cases ─► sandbox: each case's code, what it saw as JSON ─► compared here ─► verdicts

The sandbox gets inputs and never an expected value, so that nothing in it can read or change what
is expected, leave early into a pass, or be equal to everything. One run takes about 0.1 s, however
many cases it has.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import Any

from selenite.agent.sandbox.limits import Limits
from selenite.agent.sandbox.sandbox import Sandbox, availability
from selenite.agent.sandbox.session import Outcome
from selenite.errors import ConfigError, StorageError, UnsupportedError
from selenite.rl.gym.environment import EnvironmentFailedError

LIMITS = Limits(
    seconds=10,
    cpu_seconds=2,
    memory_bytes=2**28,
    processes=16,
    output_bytes=2**20,
    disk_bytes=2**23,
)
"""Processor time is what code may use; the clock bounds code that waits, and leaves room for a
machine that is busy."""

STOPPED = "stopped"
"""How the fault of a case begins that had to be stopped, or that came after such a one."""

_LONGEST = 200  # characters of a value or an error that are told
_COMMAND = ("python3", "-I", "-S", "inside.py")
_INSIDE = resources(__package__).joinpath("inside.py").read_text(encoding="utf-8")
_places = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Runs of this process at one time: each has a processor to itself, or its clock would count the
others."""


@dataclass(frozen=True)
class Case:
    """One thing that code must do. ``code`` calls ``see(...)`` once for each of ``seen``."""

    name: str
    code: str
    seen: tuple[tuple[str, Any], ...]  # an expression as people read it, and the JSON value it has


class Examiner:
    """Runs cases. For any number of threads.

    Raises ``ConfigError`` where this machine has no sandbox.
    """

    def __init__(self) -> None:
        found = availability()
        if not found.value:
            raise ConfigError(
                f"environments: code of models needs a sandbox, which cannot start here: "
                f"{found.reason}; see docs/sandbox.md, or leave this environment out"
            )
        self._sandbox = Sandbox(LIMITS)

    def faults(self, files: Mapping[str, str], cases: Sequence[Case]) -> list[str]:
        """What is wrong, case by case; "": it holds.

        Args:
            files: Python modules by path; ``inside.py`` is taken.

        Raises ``EnvironmentFailedError`` where the sandbox itself fails.
        """
        assert "inside.py" not in files
        given = json.dumps([case.code for case in cases])
        try:
            with _places:
                outcome = self._sandbox.run(_COMMAND, {**files, "inside.py": _INSIDE}, given)
        except (UnsupportedError, StorageError, OSError) as error:
            raise EnvironmentFailedError(f"the sandbox failed: {error}") from error
        lines = outcome.stdout.splitlines()
        return [
            _fault(case, lines[number]) if number < len(lines) else _ended(outcome)
            for number, case in enumerate(cases)
        ]


def _same(one: Any, other: Any) -> bool:
    """Whether two values of JSON are the same; unlike in Python, 1 is neither 1.0 nor true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _fault(case: Case, line: bytes) -> str:
    """Of one case's line, which anybody in the sandbox may have written."""
    try:
        told = json.loads(line)
        seen = [json.loads(text) for text in told["seen"]]
        fault = str(told["fault"])
        for (expression, expected), value in zip(case.seen, seen, strict=False):
            if not _same(value, expected):
                return _short(f"{expression} is {value!r} instead of {expected!r}")
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its result cannot be read"
    if fault or len(seen) != len(case.seen):
        return _short(fault or f"{len(seen)} values instead of {len(case.seen)}")
    return ""


def _ended(outcome: Outcome) -> str:
    """Why a case has no line."""
    if outcome.was_killed_by is not None:
        return f"{STOPPED}: over the limit on {outcome.was_killed_by}"
    said = outcome.stderr_text.strip().splitlines()
    return _short(f"it ended early, with exit code {outcome.exit_code}: {said[-1] if said else ''}")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
