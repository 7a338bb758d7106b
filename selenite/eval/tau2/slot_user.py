"""A user that is code: says why it calls, and then only what it is asked.

    text of the agent ─► slots asked for ─► their facts      (facts.py)
                      ─► something to do ─► the user's tool  (device.py), then its result
                      ─► to confirm ─► a yes, if all that is asked was told or is in the text
                      ─► what to do ─► the wish again
                      ─► a question ─► what the instructions say about it, or "I do not know"
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
from selenite.eval.tau2.task import STOP, TRANSFER, YES, Task, Turn
from selenite.types import Message, ToolCall, ToolSpec

_ASKS = re.compile(
    r"\?|\b(please|provide|need|could you|can you|may i|confirm|tell me|let me know|share)\b", re.I
)
_TRANSFERS = re.compile(r"\btransferr?(ed|ing) (you )?to\b|\bbeing transferred\b", re.I)
_CONFIRMS = re.compile(
    r"\bconfirm(?!ed)|\bproceed|\bgo ahead|\bis (that|this|it) (correct|right|ok)|\byes\b|"
    r"\b(would|do) you (like|want) (me|us) to\b|\bshall i\b|\bshould i\b|"
    r"\bmay i\b(?! (have|know|ask|get))",
    re.I,
)
_CONFIRMING = {"confirm", "confirmation", "final"}
_IN_SO_MANY_WORDS = re.compile(r"\byes\b|\bdo you confirm", re.I)
_OPEN = re.compile(
    r"\bhow (can|may|could) (i|we) (help|assist|be of)\b|\bwhat (can|may|could) (i|we) do\b|"
    r"\bwhat (can|may|could) (i|we) (help|assist) you with\b|"
    r"\bwhat (would|do) you (like|want|need)( (me|us) to\b| to do\b| (to )?help\b| ?(?=\?))",
    re.I,
)
_WANTS_A_VALUE = re.compile(r"\b(provide|what|which|where|tell me|share)\b", re.I)
_MORE = re.compile(
    r"\b(anything|something|what) else\b|\b(further|other|more) (help|assistance)|"
    r"\b(help|assist) you (any )?further",
    re.I,
)
_ENDS = re.compile(
    r"\b(done|completed?|success\w*|has been|have been|is now|are now|cannot|can't|unable|sorry|"
    r"not (able|possible|allowed))\b",
    re.I,
)
_WISHES = re.compile(r"\b(want|wants|would like|wish|need)\b", re.I)


class SlotUser:
    """Of one episode."""

    def __init__(self, task: Task, tools: Sequence[ToolSpec], writes: frozenset[str]) -> None:
        self._facts = facts_of(task)
        self._tools = tools
        self._writes = writes  # names of tools, of both sides, that change something
        self._has_written = False  # since the last wish: there may be an end
        self._actions = [action for action in task.actions if action.is_users]
        wish = sentences(task.wish)
        opening = [s for s in wish if not (is_about_manner(s) or is_conditional(s))] or wish
        self._wish = " ".join(map(by_me, opening))
        self._has_begun = not opening
        later = [s for s in wish if s not in opening] + sentences(task.directions)
        self._untold = [sentence for sentence in later if not is_about_manner(sentence)]
        self._untold += sentences(task.known)
        self._asked = set[str]()  # slots
        self._answers = set[str]()  # slots whose facts were told in answer
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
        if not self._has_begun:
            self._has_begun = True
            return self._said(self._wish)
        if _TRANSFERS.search(text):
            return Turn(TRANSFER)
        self._pauses = 0 if is_asked else self._pauses + 1
        return self._answered(text) if is_asked else self._unasked(text)

    def see(self, calls: Sequence[ToolCall]) -> None:
        """Calls of the agent's, or of its own: only a change lets a statement be the end."""
        self._has_written |= any(call.name in self._writes for call in calls)

    def _answered(self, text: str) -> Turn:
        slots = slots_asked(text)
        is_to_confirm = bool(_CONFIRMS.search(_OPEN.sub("", text)))
        facts = [
            f"My {SLOTS[slot].label} is {' and '.join(values)}."
            for slot in slots
            if (values := [fact.value for fact in self._facts if fact.slot == slot])
        ]
        if facts and not (is_to_confirm and all(self._is_settled(slot, text) for slot in slots)):
            self._answers |= set(slots)
            return self._said(" ".join(facts))
        if (tool := asked_tool(text, self._tools)) is not None:
            known = [action.arguments for action in self._actions if action.name == tool.name]
            arguments = arguments_said(text, tool, known)
            if arguments is None:
                return Turn("Which one, please?")
            self._calls += 1
            id = f"functions.{tool.name}:user{self._calls}"
            call = ToolCall(tool.name, json.dumps(arguments), id)
            self.see([call])
            return Turn(calls=(call,))
        if _MORE.search(text) and not _IN_SO_MANY_WORDS.search(text):
            return self._next()
        if self._wish and _OPEN.search(text) and not is_to_confirm:
            return self._said(self._wish)
        is_yes_due = is_to_confirm and not _WANTS_A_VALUE.search(text)
        about = self._on_condition(text) if is_yes_due else self._about(text)
        if about is not None:
            return self._told(about)
        if is_to_confirm:
            return Turn(YES)
        if slots:
            return Turn(f"I do not remember my {SLOTS[slots[0]].label}.")
        return Turn("I do not know that. Please do what you think is best.")

    def _is_settled(self, slot: str, text: str) -> bool:
        """Whether a text that asks for a slot may be answered without its facts: it has one of them
        itself, or they were told and are not wanted again."""
        facts = [fact for fact in self._facts if fact.slot == slot]
        said = text.replace("_", " ")
        if slot == "zip" and re.search(SLOTS[slot].form, text):
            return True  # an address that is listed has one, and it may be another one
        forms = [form.replace("_", " ") for fact in facts for form in fact.forms]
        if any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", said, re.I) for form in forms):
            return True
        return not facts or (slot in self._answers and not _WANTS_A_VALUE.search(text))

    def _unasked(self, text: str) -> Turn:
        if self._pauses > 1 or (self._has_written and _ENDS.search(text)):
            return self._next()
        return Turn("Please go on.")

    def _on_condition(self, text: str) -> str | None:
        """The first sentence with a condition that a text meets which asks to confirm: that it
        does, or all that the condition names."""
        said = content_words(text) | _CONFIRMING
        for sentence in filter(is_conditional, self._untold):
            words = content_words(sentence.partition(",")[0])
            if words and (words <= _CONFIRMING or (len(words) > 1 and words <= said)):
                return sentence
        return None

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
                self._pauses, self._has_written = 0, False
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
