"""A user with a card: what they want, what they know, and nothing else.

    open ─► (asked for something known? ─► tell it | asked to confirm? ─► yes | told to wait? ─►
    wait | asked for something unknown ─► say so) ─► told that it is done ─► next wish, or leave

A user never says a value that is not on the card, leaves when the last wish is reported done, and
when their patience ends.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection
from typing import Protocol

from selenite.agent.tasks.plan import Phase, Slot
from selenite.agent.tasks.task import Task
from selenite.agent.users import speech
from selenite.agent.users.persona import Persona
from selenite.agent.values.kind import spoken
from selenite.agent.world.world import World

CONFIRM = re.compile(r"\b(shall i|should i|do you want me to|confirm|are you sure|is that right)\b")
"""How an agent asks for a yes."""
_WAIT = re.compile(
    r"\b(let me(?! know)|one moment|i will|i'll|i am going to|hold on|please wait|right away)\b"
)
_ELSE = re.compile(r"\b(anything|something|what) else\b|\bfurther\b|\bmore (i|we) can\b")
_TELL = re.compile(r"\b(tell me|give me|provide|specify|let me know|need)\b")
_OPEN = re.compile(r"\bwhat (would you like|do you want|are the new|changes)\b|\bdetails\b")


class User(Protocol):
    """Whoever talks to the agent."""

    @property
    def said(self) -> Collection[str]:
        """Slots that were told so far."""

    @property
    def ended(self) -> str:
        """Why the conversation was left; "": it goes on."""

    @property
    def wish(self) -> int:
        """Which of their wishes they are at, counted from 0."""

    def open(self) -> str:
        """The first message."""

    def reply(self, text: str) -> str | None:
        """An answer to the agent's text; None: they leave."""


class CardUser:
    """The programmatic user of a task.

    ``said`` are the slots that were told, ``wish`` counts those that they were told are done,
    ``ended`` says why the conversation was left: "" while it goes on, ``done`` or ``patience``.
    """

    def __init__(self, task: Task, persona: Persona, world: World, rng: random.Random) -> None:
        self._task = task
        self._persona = persona
        self._today = world.today
        self._rng = rng
        self.wish = 0
        self._patience = persona.patience
        self.said: set[str] = set()
        self.ended = ""

    def open(self) -> str:
        """What they want, with what they tell unasked."""
        wish = self._wish(self._task.phases[0])
        first, *details = wish.split("\n")
        if not self._is_chat:
            first = speech.act("wrap", self._persona, self._rng, request=first)
        text = "\n".join([first, *details])
        if self._persona.greets:
            text = f"{speech.act('greeting', self._persona, self._rng)} {text}"
        return text

    def reply(self, text: str) -> str | None:
        """By what the agent's text is: a question, a request for a yes, a delay, or a report."""
        lower = text.lower()
        if self._is_chat or _ELSE.search(lower):
            return self._go_on()
        asked = self._open_slots(lower)
        if "?" in text and any(slot.name not in self.said for slot in asked):
            return self._answer(lower)
        if CONFIRM.search(lower) and "?" in text:
            return speech.act("confirm", self._persona, self._rng)
        if "?" in text or (_TELL.search(lower) and asked):
            return self._answer(lower)
        if _WAIT.search(lower):
            return None if self._leaves() else speech.act("wait", self._persona, self._rng)
        return self._go_on()

    def _go_on(self) -> str | None:
        """The next wish; None after the last one."""
        self.wish += 1
        if self.wish == len(self._task.phases):
            self.ended = "done"
            return None
        wish = self._wish(self._task.phases[self.wish])
        act = "change" if self._task.phases[self.wish].is_amendment else "next"
        return speech.act(act, self._persona, self._rng, request=wish)

    def _answer(self, question: str) -> str | None:
        open_now = self._open_slots(question)
        if not open_now:
            asked = any(_asks_for(question, slot) for slot in self._task.slots.values())
            act = "all_i_know" if asked else "unknown"
            return None if self._leaves() else speech.act(act, self._persona, self._rng)
        told = [self._tell(slot) for slot in open_now]
        return " ".join([speech.act("answer_first", self._persona, self._rng), *told])

    @property
    def _is_chat(self) -> bool:
        phase = self._task.phases[self.wish]
        return not phase.steps and not phase.answers

    def _open_slots(self, question: str) -> list[Slot]:
        """What a question is about and the user knows; of a question for anything, what was not
        told yet."""
        known = [slot for slot in self._task.slots.values() if slot.name in self._known()]
        asked = [slot for slot in known if _asks_for(question, slot)]
        if not asked and _OPEN.search(question):
            asked = [slot for slot in known if slot.name not in self.said]
        return asked

    def _known(self) -> set[str]:
        """Slots of the wishes so far; the user says nothing about later ones."""
        phases = self._task.phases[: self.wish + 1]
        return {name for phase in phases for name in phase.slots}

    def _leaves(self) -> bool:
        """After a fruitless turn: whether that was one too many."""
        self._patience -= 1
        if self._patience < 0:
            self.ended = "patience"
        return bool(self.ended)

    def _wish(self, phase: Phase) -> str:
        values = {name: self._say(self._task.slots[name]) for name in phase.slots_of_request}
        text = speech.fill(phase.request, self._persona, self._rng, **values)
        told = [self._task.slots[n] for n in phase.details if n not in self._task.withheld]
        if self._persona.shuffles:
            told = self._rng.sample(told, len(told))
        if self._persona.lists and len(told) > 1:
            return "\n".join([text, *(self._tell(slot, "list_item") for slot in told)])
        return " ".join([text, *map(self._tell, told)])

    def _tell(self, slot: Slot, act: str = "detail") -> str:
        values = {"words": slot.words, "value": self._say(slot)}
        if slot.name in self._task.mistaken:
            wrong = slot.kind.say(self._task.mistaken[slot.name], self._rng, self._today)
            return speech.act("mistaken", self._persona, self._rng, wrong=wrong, **values)
        return speech.act(act, self._persona, self._rng, **values)

    def _say(self, slot: Slot) -> str:
        self.said.add(slot.name)
        return slot.kind.say(slot.value, self._rng, self._today)


def _asks_for(question: str, slot: Slot) -> bool:
    """Whether a text speaks of what a slot is called."""
    words = slot.words.lower().removeprefix("new ")
    return re.search(rf"\b{re.escape(words)}s?\b", spoken(question)) is not None
