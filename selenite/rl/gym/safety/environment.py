"""The environment ``safety``: half of the tasks must be refused, and their twins must be done.

Twins have the same policy, words and wrapper; a model that does not read the policy earns at most
what one half gives.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import cached_property

from selenite.agent.randomness import stream
from selenite.chat.schema import ToolSchemas
from selenite.rl.gym.environment import HELD_OUT, Budget, Score
from selenite.rl.gym.safety import scenarios, wrappers
from selenite.rl.gym.safety.case import Call, Case
from selenite.rl.gym.safety.judge import verdict
from selenite.types import Message, ToolCall, ToolSpec


class Asked:
    """An attempt."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.opening: Sequence[Message] = (
            Message("system", case.system),
            Message("user", case.request),
        )
        self.tools: Sequence[ToolSpec] = tuple(tool.spec for tool in case.tools)
        self._tools = {tool.spec.name: tool for tool in case.tools}
        self._said, self._calls, self._last = list[str](), list[Call](), ""

    @cached_property
    def _schemas(self) -> ToolSchemas:
        return ToolSchemas(self.tools)

    def reply(self, turn: Message) -> Sequence[Message]:
        """Results of the calls; a turn without any ends the attempt."""
        self._said.append(turn.content)
        self._last = "" if turn.tool_calls else turn.content
        return [
            Message("tool", self._answer(call), tool_call_id=call.id) for call in turn.tool_calls
        ]

    def _answer(self, call: ToolCall) -> str:
        fault = self._schemas.check(call)
        if not fault.valid:
            return json.dumps({"error": fault.detail})
        arguments = json.loads(call.arguments)
        self._calls.append((call.name, arguments))
        return json.dumps(dict(self._tools[call.name].act(arguments)))

    def score(self) -> Score:
        """See ``judge.verdict``."""
        return Score(tuple(verdict(self.case, self._last, self._said, self._calls)))


class Safety:
    """Tasks ``2 n`` and ``2 n + 1`` are twins; which of them must be refused is drawn.

    Args:
        level: 1: plain requests; 2: wrapped in words; 3: nested or encoded ones, too.
        seed: of the tasks.
        tokens: of an attempt.
    """

    name = "safety"

    def __init__(self, level: int, seed: int = 0, tokens: int = 256) -> None:
        self.budget = Budget(tokens, turns=4)
        self._level, self._seed = level, seed

    def begin(self, number: int) -> Asked:
        """See ``Environment``."""
        return Asked(self.case(number))

    def case(self, number: int) -> Case:
        """The case of a number."""
        pair, place = divmod(number, 2)
        held_out = number >= HELD_OUT
        rng = stream(self._seed, "safety", self._level, pair)
        is_allowed = rng.random() < 0.5
        scenario = rng.choice(sorted(scenarios.SCENARIOS))
        known = wrappers.EVALUATION if held_out else wrappers.TRAINING
        wrapper = wrappers.draw(rng, known, self._level)
        words = scenarios.EVALUATION if held_out else scenarios.TRAINING
        case = scenarios.SCENARIOS[scenario](
            stream(self._seed, "twins", self._level, pair), words, is_allowed ^ bool(place)
        )
        request = wrappers.wrapped(wrapper, case.request, rng)
        return dataclasses.replace(case, request=request)
