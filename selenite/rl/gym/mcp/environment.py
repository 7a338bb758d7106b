"""The environment ``mcp``: a server's process and a directory of its own for each attempt.

What is judged is the directory at the end, against one that was brought to the same end by other
means: all that should have changed is as there, and nothing else has changed.
"""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selenite.agent.mcp.catalogue import read_catalogue
from selenite.agent.mcp.install import launch_of
from selenite.agent.mcp.launch import Launch
from selenite.agent.mcp.toolbox import Toolbox
from selenite.agent.randomness import stream
from selenite.agent.world.reply import Code, Refusal, Reply, refused
from selenite.errors import EndpointError, StorageError
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, EnvironmentFailedError, Score
from selenite.rl.gym.mcp.database import remove, ship, totals
from selenite.rl.gym.mcp.files import archive, setting, total
from selenite.rl.gym.mcp.job import EVALUATION, SERVERS, TRAINING, Job, ServerName, State, Words
from selenite.rl.gym.mcp.repository import commit_but, commit_some, on_a_branch
from selenite.types import Message, ToolSpec

JOBS: Mapping[ServerName, Sequence[Callable[[random.Random, Words], Job]]] = {
    "filesystem": (total, archive, setting),
    "git": (commit_some, commit_but, on_a_branch),
    "sqlite": (ship, remove, totals),
}
"""What there is to do with each server."""
assert set(JOBS) == set(SERVERS), "each server has its jobs"

_CALL_SECONDS = 20.0  # of the clock, for one answer of a server
_REPLY_CHARS = 4000
_LEAVES = re.compile(r"\b(attach|vacuum|load_extension)\b", re.IGNORECASE)
"""SQL that reaches other files than the database."""


class Work:
    """An attempt. ``close`` it: it has a process and a directory."""

    def __init__(self, job: Job, launch: Launch) -> None:
        """Raises ``EnvironmentFailedError`` where the server does not start."""
        self.job = job
        with tempfile.TemporaryDirectory(prefix="selenite-job-") as folder:
            start = Path(folder)
            job.prepare(start)
            self._before = job.state(start)
            self.toolbox = Toolbox(
                [launch], start, call_seconds=_CALL_SECONDS, max_reply_chars=_REPLY_CHARS
            )
            try:
                self.toolbox.__enter__()
            except (EndpointError, StorageError) as error:
                raise EnvironmentFailedError(str(error)) from error
            job.finish(start)
            self._goal = job.state(start)
        assert self._goal != self._before, job.request
        self.opening: Sequence[Message] = (Message("user", job.request),)
        self.tools: Sequence[ToolSpec] = self.toolbox.specs

    def reply(self, turn: Message) -> Sequence[Message]:
        """Results of the calls; a turn without any ends the attempt."""
        return [
            Message("tool", self._answer(call.name, call.arguments).text(), tool_call_id=call.id)
            for call in turn.tool_calls
        ]

    def _answer(self, name: str, text: str) -> Reply:
        try:
            arguments = json.loads(text)
        except (ValueError, RecursionError):
            arguments = None
        if not isinstance(arguments, dict):
            return refused(Refusal(Code.INVALID_ARGUMENT, "The arguments are no JSON object."))
        if self.job.server == "sqlite" and _LEAVES.search(text):
            reason = "Queries may use this database alone."
            return refused(Refusal(Code.PERMISSION_DENIED, reason))
        try:
            return self.toolbox.call(name, arguments)
        except EndpointError as error:
            raise EnvironmentFailedError(str(error)) from error

    def score(self) -> Score:
        """By the directory alone."""
        found = self.job.state(self.toolbox.directory.root)
        wanted = _changes(self._before, self._goal)
        wrong = [part for part in sorted(wanted) if found.get(part) != self._goal.get(part)]
        beside = sorted(_changes(self._before, found) - wanted)
        return Score(
            (
                Check("goal", float(not wrong), _told("not as asked", wrong)),
                Check("nothing else", float(not beside), _told("changed too", beside)),
            )
        )

    def close(self) -> None:
        """Ends the server and removes the directory."""
        self.toolbox.__exit__(None, None, None)


class Mcp:
    """Tasks for MCP servers of our catalogue.

    Args:
        servers: whose tasks there are; an attempt has one of them.
        seed: of the tasks.
        budget: of an attempt.

    Raises what ``launch_of`` raises: servers that are not there yet are installed.
    """

    name = "mcp"

    def __init__(
        self,
        servers: Sequence[ServerName] = SERVERS,
        seed: int = 0,
        budget: Budget | None = None,
    ) -> None:
        self.budget = budget or Budget(tokens=1024, turns=16)
        self._seed = seed
        catalogue = read_catalogue()
        self._launches: Mapping[str, Launch] = {
            name: launch_of(catalogue, name) for name in servers
        }
        self._servers = tuple(servers)

    def begin(self, number: int) -> Work:
        """See ``Environment``."""
        job = self.job(number)
        return Work(job, self._launches[job.server])

    def job(self, number: int) -> Job:
        """The task of a number. Servers take turns."""
        server = self._servers[number % len(self._servers)]
        rng = stream(self._seed, "mcp", server, number)
        words = EVALUATION if number >= HELD_OUT else TRAINING
        return rng.choice(JOBS[server])(rng, words)


def _changes(before: State, after: State) -> set[str]:
    parts = before.keys() | after.keys()
    return {part for part in parts if before.get(part) != after.get(part)}


def _told(how: str, parts: Sequence[str]) -> str:
    return f"{how}: {', '.join(parts)}" if parts else ""
