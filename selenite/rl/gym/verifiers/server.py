"""Plays one of our environments for another process, by lines as in ``selenite_lines``.

Usage: python -m selenite.rl.gym.verifiers.server TABLE, where TABLE is an environment's table of a
config, as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import Any

from pydantic import TypeAdapter

from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import Environment, Episode, close
from selenite.rl.gym.verifiers.messages import lines_of, tool_lines, turn_of
from selenite.rl.gym.verifiers.theirs.selenite_lines import Answer, serve


class Server:
    """Attempts at an environment, each by its own number."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._attempts: dict[int, Episode] = {}
        self._numbers = itertools.count()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Of an operation; in a thread, as an environment may take its time."""
        return await asyncio.to_thread(self._answer, request)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        op = request["op"]
        if op == "describe":
            budget = self._environment.budget
            name = self._environment.name
            return {"name": name, "tokens": budget.tokens, "turns": budget.turns}
        if op == "begin":
            episode = self._environment.begin(request["number"])
            number = next(self._numbers)
            self._attempts[number] = episode
            messages = [lines_of(message) for message in episode.opening]
            tools = [tool_lines(tool) for tool in episode.tools]
            return {"attempt": number, "messages": messages, "tools": tools}
        if op == "close":
            close(self._attempts.pop(request["attempt"]))
            return {}
        episode = self._attempts[request["attempt"]]
        if op == "reply":
            more = episode.reply(turn_of(request["turn"]))
            return {"messages": [lines_of(message) for message in more]}
        assert op == "score", op
        score = episode.score()
        checks = {check.name: check.value for check in score.checks}
        return {"reward": score.value, "checks": checks}


def _opened() -> Answer:
    part: EnvironmentPart = TypeAdapter(EnvironmentPart).validate_json(sys.argv[1])
    return Server(part.open()).answer


if __name__ == "__main__":
    serve(_opened)
