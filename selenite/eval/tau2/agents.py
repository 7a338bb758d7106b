"""Who acts: nobody, the solution, and a model.

The solution asks the user for what the user alone can know, tells the user what to do with the
user's tools, and says what must be said at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from selenite.agent.models.failure import OF_ENDPOINT, ModelError, Reason
from selenite.agent.models.model import Model
from selenite.agent.randomness import stream
from selenite.eval.question import TOO_LONG
from selenite.eval.tau2.episode import DONE, EMPTY
from selenite.eval.tau2.facts import QUESTIONS, Fact, facts_of
from selenite.eval.tau2.task import Action, Task, Turn
from selenite.types import Message, ToolCall, ToolSpec

NOT_TOLD = "the user did not say what was asked"


class NullAgent:
    """Never does anything."""

    def __init__(self, is_solo: bool) -> None:
        self._is_solo = is_solo

    def act(self, messages: Sequence[Message]) -> Turn:
        """Ends."""
        if self._is_solo:
            return Turn(calls=(ToolCall(DONE, "{}", "done"),))
        return Turn("I cannot help with that.")


class GoldAgent:
    """Plays the task's own solution. ``asks`` before each call for those of its values that are
    facts of the user's."""

    def __init__(self, task: Task, is_solo: bool, asks: bool) -> None:
        self._turns = self._all(task, is_solo, asks)
        self._heard = ""

    def act(self, messages: Sequence[Message]) -> Turn:
        """The next one."""
        self._heard = messages[-1].content
        return next(self._turns)

    def _all(self, task: Task, is_solo: bool, asks: bool) -> Iterator[Turn]:
        asked, facts = set[str](), facts_of(task)
        for number, action in enumerate(task.actions):
            if asks:
                yield from self._questions(facts, action, asked)
            if action.is_users and not is_solo:
                values = " ".join(f"{name} {value}" for name, value in action.arguments.items())
                words = action.name.replace("_", " ")
                yield Turn(f"On your phone, please {words} {values}".strip() + ".")
            else:
                id = f"functions.{action.name}:{number}"
                yield Turn(calls=(ToolCall(action.name, json.dumps(action.arguments), id),))
        if is_solo:
            yield Turn(calls=(ToolCall(DONE, "{}", "done"),))
        while True:  # a user may say more
            yield Turn(" ".join(["It is done:", *task.to_say]))

    def _questions(self, facts: Sequence[Fact], action: Action, asked: set[str]) -> Iterator[Turn]:
        values = {str(value) for value in action.arguments.values()}
        for fact in facts:
            if fact.slot in asked or not values & fact.forms:
                continue
            asked.add(fact.slot)
            yield Turn(QUESTIONS[fact.slot])
            if fact.value not in self._heard:
                yield Turn(fault=f"{NOT_TOLD}: {fact.slot}")


class ModelPlayer:
    """A model, as agent or as user. What it writes is taken as it comes."""

    def __init__(
        self,
        model: Model,
        tools: Sequence[ToolSpec],
        path: Sequence[str | int],
        temperature: float,
        max_tokens: int,
        must_call: bool = False,
    ) -> None:
        self._model = model
        self._tools = tuple(tools)
        self._path = path  # of its seeds: the same at every try, so that a cache has the answers
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._must_call = must_call
        self._turns = 0

    def act(self, messages: Sequence[Message]) -> Turn:
        """The model's next turn."""
        seed = stream(0, "tau2", *self._path, self._turns).getrandbits(31)
        self._turns += 1
        try:
            found = self._model.complete(
                messages,
                tools=self._tools,
                tool_choice="required" if self._must_call else None,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
                seed=seed,
                repair_calls=False,
            )
        except ModelError as failure:
            if failure.reason is Reason.TOO_LONG:
                return Turn(fault=TOO_LONG)
            if failure.reason in OF_ENDPOINT - {Reason.EMPTY}:
                return Turn(error=f"{failure.reason}: {failure.detail[:300]}")
            return Turn(fault=EMPTY if failure.reason is Reason.EMPTY else failure.reason.value)
        return Turn(found.text, found.tool_calls)
