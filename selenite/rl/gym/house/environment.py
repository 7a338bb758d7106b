"""The environment ``house``: a request, tools that act on a house, and what is looked at after.

Its requests take one to three turns, and all that a call needs is one of a few words or a small
number that the request has: a model of some million parameters learns it in minutes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from selenite.agent.randomness import stream
from selenite.rl.gym.environment import HELD_OUT, SHOWN, Budget, Check, Score
from selenite.rl.gym.house.house import TOOLS, House
from selenite.rl.gym.house.requests import LEVELS, Sides, Wish
from selenite.types import Message, ToolSpec

_WORD = re.compile(r"[a-z]+")
_NUMBER = re.compile(r"-?\d+")
_MOST_WORDS = 40  # of the last turn


class Visit:
    """An attempt at a request."""

    def __init__(self, wish: Wish, house: House) -> None:
        self._wish, self._house = wish, house
        self._first, self._wanted = house.copy(), house.copy()
        for turn in wish.solution:
            for call in turn.tool_calls:
                self._wanted.do(call)
        self._looked = set[str]()  # rooms whose temperature was read in turns before
        self._rash: list[str] = []  # what was changed that should not be, or not yet
        self._last = ""
        self.opening: Sequence[Message] = (Message("user", wish.text),)
        self.tools: Sequence[ToolSpec] = TOOLS

    def reply(self, turn: Message) -> Sequence[Message]:
        """Results of the calls; a turn without any ends the attempt."""
        self._last = "" if turn.tool_calls else turn.content
        results, read = list[Message](), set[str]()
        for call in turn.tool_calls:
            before = self._house.copy()
            result = self._house.do(call)
            if self._house != before:
                self._note_change(call.name)
            if call.name == "read_temperature" and "error" not in json.loads(result):
                read.add(json.loads(call.arguments)["room"])
            results.append(Message("tool", result, tool_call_id=call.id))
        self._looked |= read
        return results

    def _note_change(self, name: str) -> None:
        """What a call has changed: to what was wanted, and after what had to be read."""
        if not self._house.lies_between(self._first, self._wanted):
            self._rash.append(f"{name} changed what should stay")
        elif self._wish.looked is not None and self._wish.looked not in self._looked:
            self._rash.append(f"{name} before the {self._wish.looked} was looked at")

    def score(self) -> Score:
        """Whether the house is as it was asked for and as it was otherwise, and what was told."""
        wish = self._wish
        faults = self._rash + (["not as asked for"] if self._house != self._wanted else [])
        checks = [Check("house", float(not faults), "; ".join(faults))]
        words = len(self._last.split())
        is_brief = 0 < words <= _MOST_WORDS
        checks.append(Check("answer", float(is_brief), "" if is_brief else "none, or a long one"))
        missing = sorted(wish.named - set(_WORD.findall(self._last.lower())))
        reason = f"does not name {', '.join(missing)}" if missing else ""
        checks.append(Check("named", float(not missing), reason))
        if wish.looked is not None:
            has_looked = wish.looked in self._looked
            reason = "" if has_looked else f"the {wish.looked} was not looked at"
            checks.append(Check("looked", float(has_looked), reason))
        if wish.told is not None:
            is_told = set(_NUMBER.findall(self._last)) == {str(wish.told)}
            checks.append(Check("told", float(is_told), "" if is_told else f"not {wish.told}"))
        return Score(tuple(checks))


class HouseKeeping:
    """Requests by number.

    Args:
        level: 1: one thing; 2: also two at once; 3: also what depends on what is read.
        seed: of the tasks.
        tokens: of an attempt.
    """

    name = "house"

    def __init__(self, level: int, seed: int = 0, tokens: int = 160) -> None:
        self.budget = Budget(tokens, turns=4)
        self._level, self._seed = level, seed

    def begin(self, number: int) -> Visit:
        """See ``Environment``. Held-out tasks are about places that training never has, and so are
        some that are acted in about places that no lesson has."""
        return Visit(*self._asked(number))

    def solution(self, number: int) -> Sequence[Message]:
        """See ``Demonstrating``."""
        return self._asked(number)[0].solution

    def _asked(self, number: int) -> tuple[Wish, House]:
        rng = stream(self._seed, "house", self._level, number)
        house = House.draw(rng)
        make = rng.choice(LEVELS[self._level])
        return make(rng, house, _sides(number)), house


def _sides(number: int) -> Sides:
    if number >= HELD_OUT:
        return frozenset({"held out"})
    return frozenset({"shown"} if number >= SHOWN else {"shown", "met"})
