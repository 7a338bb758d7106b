"""A user that is code: says why it calls, and then only what it is asked.

    text of the agent ─► slots asked for ─► their facts      (facts.py)
                      ─► something to do ─► the user's tool  (device.py), then its result
                      ─► a question ─► what the instructions say about it, a yes, or "I do not know"
                      ─► nothing asked ─► the next wish, or the end

No text leaves it with a fact whose slot was not asked for: they are left out of all else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from selenite.eval.tau2.device import arguments_said, asked_tool
from selenite.eval.tau2.facts import SLOTS, facts_of, slots_asked, without
from selenite.eval.tau2.speech import (
    by_me,
    consequent,
    content_words,
    is_about_manner,
    is_conditional,
    sentences,
)
from selenite.eval.tau2.task import STOP, TRANSFER, Task, Turn
from selenite.types import Message, ToolCall, ToolSpec

_ASKS = re.compile(
    r"\?|\b(please|provide|need|could you|can you|may i|confirm|tell me|let me know|share)\b", re.I
)
_TRANSFERS = re.compile(r"\btransferr?(ed|ing) (you )?to\b|\bbeing transferred\b", re.I)
_CONFIRMS = re.compile(
    r"\bconfirm|\bproceed|\bgo ahead|\bis (that|this|it) (correct|right|ok)|\byes\b|"
    r"\b(would|do) you (like|want) (me|us) to\b|\bshall i\b|\bshould i\b|\bmay i\b",
    re.I,
)
_MORE = re.compile(r"\b(anything|something) else\b|\b(further|other|more) (help|assistance)", re.I)
_ENDS = re.compile(
    r"\b(done|completed?|success\w*|has been|have been|is now|are now|cannot|can't|unable|sorry|"
    r"not (able|possible|allowed))\b",
    re.I,
)
_WISHES = re.compile(r"\b(want|wants|would like|wish|need)\b", re.I)


class SlotUser:
    """Of one episode."""

    def __init__(self, task: Task, tools: Sequence[ToolSpec]) -> None:
        self._facts = facts_of(task)
        self._tools = tools
        self._actions = [action for action in task.actions if action.is_users]
        wish = sentences(task.wish)
        self._opening = [s for s in wish if not (is_about_manner(s) or is_conditional(s))] or wish
        later = [s for s in wish if s not in self._opening] + sentences(task.directions)
        self._untold = [sentence for sentence in later if not is_about_manner(sentence)]
        self._untold += sentences(task.known)
        self._asked = set[str]()  # slots
        self._pauses = 0  # texts in a row that asked for nothing
        self._calls = 0

    def act(self, messages: Sequence[Message]) -> Turn:
        """The user's next turn."""
        last = messages[-1]
        if last.role == "tool":
            return self._said(f"I did that. It says: {last.content}")
        text = last.content
        is_asked = bool(_ASKS.search(text))
        if is_asked:
            self._asked |= set(slots_asked(text))
        if self._opening:
            opening, self._opening = self._opening, []
            return self._said(" ".join(map(by_me, opening)))
        if _TRANSFERS.search(text):
            return Turn(TRANSFER)
        self._pauses = 0 if is_asked else self._pauses + 1
        return self._answered(text) if is_asked else self._unasked(text)

    def _answered(self, text: str) -> Turn:
        slots = slots_asked(text)
        facts = [
            f"My {SLOTS[slot].label} is {' and '.join(values)}."
            for slot in slots
            if (values := [fact.value for fact in self._facts if fact.slot == slot])
        ]
        if facts:
            return self._said(" ".join(facts))
        if (tool := asked_tool(text, self._tools)) is not None:
            known = [action.arguments for action in self._actions if action.name == tool.name]
            arguments = arguments_said(text, tool, known)
            if arguments is None:
                return Turn("Which one, please?")
            self._calls += 1
            id = f"functions.{tool.name}:user{self._calls}"
            return Turn(calls=(ToolCall(tool.name, json.dumps(arguments), id),))
        if _MORE.search(text):
            return self._next()
        if (about := self._about(text)) is not None:
            return self._told(about)
        if _CONFIRMS.search(text):
            return Turn("Yes, please go ahead.")
        if slots:
            return Turn(f"I do not remember my {SLOTS[slots[0]].label}.")
        return Turn("I do not know that. Please do what you think is best.")

    def _unasked(self, text: str) -> Turn:
        if _ENDS.search(text) or self._pauses > 1:
            return self._next()
        return Turn("Please go on.")

    def _about(self, text: str) -> str | None:
        """The sentence that is most about a text, if it shares two words with it, or half."""
        words = content_words(text)
        shared = [(len(content_words(sentence) & words), sentence) for sentence in self._untold]
        most, sentence = max(shared, default=(0, ""), key=lambda pair: pair[0])
        return sentence if most and most >= min(2, len(words) / 2) else None

    def _next(self) -> Turn:
        """The next wish that hangs on no condition, or the end."""
        for sentence in self._untold:
            if _WISHES.search(sentence) and not is_conditional(sentence):
                return self._told(sentence)
        return Turn(STOP)

    def _told(self, sentence: str) -> Turn:
        self._untold.remove(sentence)
        return self._said(by_me(consequent(sentence)))

    def _said(self, text: str) -> Turn:
        """The text without the facts of slots that were not asked for."""
        hidden = tuple(
            fact
            for fact in self._facts
            if fact.slot not in self._asked and not SLOTS[fact.slot].is_choice
        )
        return Turn(without(text, hidden) or "I would rather not say.")
