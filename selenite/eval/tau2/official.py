"""Runs inside the sandbox, where the unpacked wheels are on the path: one domain of tau2.

    requests ─► main ─► an episode's process: tau2's orchestrator ─► its evaluator
                 │            asks for each turn of agent and user ◄─► whoever requests
                 └─► answers

Reads JSON lines {"op", ...} from one named pipe, and writes to another one line for each. An
episode is a process, a copy of this one: the database is parsed once, and what hangs or dies takes
nothing with it. A call that does not end is an error of its tool, as any other error is.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TextIO, TypedDict

import stand_ins  # type: ignore[import-not-found]
from domain import Domain, plain  # type: ignore[import-not-found]

_TURN_SECONDS = 120.0  # between what an episode is told and what it says
_MEMORY = 3 << 30  # bytes of address space of one episode
_DEAD = "its process ended"


class _Entry(TypedDict):
    process: int
    line: TextIO
    file: socket.socket


_turns: TextIO  # of an episode's process, where it asks and is answered


def generate(model: str, messages: Sequence[Any], tools: object = None, **options: object) -> Any:
    """tau2 asks a model: whoever opened the episode answers."""
    from tau2.data_model.message import AssistantMessage  # type: ignore[import-not-found]

    _say(_turns, {"ask": model, "messages": [plain(message) for message in messages]})
    line = _turns.readline()
    if not line:
        os._exit(0)
    reply = json.loads(line)
    return AssistantMessage(role="assistant", content=reply["text"], tool_calls=reply["calls"])


class Episodes:
    """Those that are being played, each in its process."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._known: dict[int, _Entry] = {}

    def open(self, number: int, task: str, solo: bool) -> dict[str, Any]:
        """Starts one."""
        ours, theirs = socket.socketpair()
        process = os.fork()
        if process == 0:
            ours.close()
            for other in self._known.values():
                other["line"].close()  # or the descriptor stays open
                other["file"].close()
            _live(self._domain, task, solo, theirs)
        theirs.close()
        self._known[number] = {"process": process, "line": ours.makefile("rw"), "file": ours}
        return self._next(number)

    def reply(self, number: int, turn: dict[str, Any]) -> dict[str, Any]:
        """Tells one what it asked for."""
        try:
            _say(self._known[number]["line"], turn)
        except OSError:  # it died since it asked
            return self._lost(number, _DEAD)
        return self._next(number)

    def close(self, number: int) -> dict[str, Any]:
        """Ends one, wherever it is."""
        entry = self._known.pop(number)
        os.kill(entry["process"], signal.SIGKILL)
        os.waitpid(entry["process"], 0)
        with suppress(OSError):  # what was written may have nobody who reads it
            entry["line"].close()
        entry["file"].close()
        return {}

    def _next(self, number: int) -> dict[str, Any]:
        """What an episode says: a question, or how it ended."""
        entry = self._known[number]
        ready, _, _ = select.select([entry["file"]], [], [], _TURN_SECONDS)
        if not ready:
            return self._lost(number, f"silent for {_TURN_SECONDS:g} s")
        try:
            found: dict[str, Any] = json.loads(entry["line"].readline())
        except (OSError, ValueError):  # nothing, or half a line
            return self._lost(number, _DEAD)
        if "ask" not in found:
            self.close(number)
        return found

    def _lost(self, number: int, why: str) -> dict[str, Any]:
        """Of an episode whose process says no more: nothing is known of its task."""
        self.close(number)
        return {"lost": f"episode {number}: {why}"}


def _live(domain: Domain, task: str, solo: bool, file: socket.socket) -> None:
    """The whole life of an episode's process."""
    global _turns
    gc.disable()  # it lives for one task
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    _turns = file.makefile("rw")
    try:
        found = domain.play(task, solo)
    except Exception as error:  # noqa: BLE001 - whatever tau2 raises is told, and is no score
        last = traceback.extract_tb(error.__traceback__)[-1]
        found = {"error": f"{type(error).__name__}: {str(error)[:500]} ({last.name})"}
    _say(_turns, found)
    os._exit(0)


def _say(file: TextIO, what: dict[str, Any]) -> None:
    file.write(json.dumps(what) + "\n")
    file.flush()


def main() -> None:
    """domain, split, the pipe of requests, the pipe of answers, and folders for the path."""
    name, split, requests, answers, *folders = sys.argv[1:]
    sys.path[:0] = folders
    sys.setrecursionlimit(10_000)  # arguments are as deep as models write them
    made: list[Domain] = []
    stand_ins.install(generate, lambda domain: made[0].environment)
    with open(answers, "w") as output, open(requests) as lines:
        made.append(Domain(name, split))
        episodes = Episodes(made[0])
        gc.freeze()  # what is parsed stays one copy for all episodes
        _say(output, made[0].describe())
        operations: dict[str, Callable[..., dict[str, Any]]] = {
            "gold": made[0].gold,
            "open": episodes.open,
            "reply": episodes.reply,
            "close": episodes.close,
        }
        for line in lines:
            request = json.loads(line)
            _say(output, operations[request.pop("op")](**request))


if __name__ == "__main__":
    main()
