"""A user whose acts and values are those of the card, and whose words are a model's.

CardUser decides: the act, the values ─► its text ─► model: the same in other words
                                           │               │ says the same? (wording.py)
                                           └── no, kept ◄──┴──► yes, said
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from selenite.agent.roles.ask import ask, text_schema
from selenite.agent.roles.objection import Objection
from selenite.agent.roles.passage import Forms
from selenite.agent.roles.prompts import IS_LOWER, MANNERS
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.roles.wording import Wording
from selenite.agent.tasks.task import Task
from selenite.agent.users.persona import Persona
from selenite.agent.users.user import CardUser


class Told(set[str]):
    """Slots that a card user told; ``now`` are those of the act that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.now: set[str] = set()

    def add(self, name: str) -> None:
        """A slot is told."""
        super().add(name)
        self.now.add(name)


class LlmUser:
    """A ``User`` that puts a card user's texts in other words. ``said`` are the slots told so far;
    ``card`` must not have said anything yet."""

    def __init__(
        self,
        card: CardUser,
        task: Task,
        persona: Persona,
        today: date,
        wording: Wording,
        source: Source,
        session: Session,
    ) -> None:
        self._card = card
        self.said = card.said = Told()
        self._task = task
        self._persona = persona
        self._today = today
        self._wording = wording
        self._source = source
        self._session = session

    @property
    def ended(self) -> str:
        """Why the conversation was left; "": it was not."""
        return self._card.ended

    @property
    def wish(self) -> int:
        """Which of their wishes they are at."""
        return self._card.wish

    def open(self) -> str:
        """What they want."""
        text, values = self._told(self._card.open)
        assert text is not None
        return self._reworded(text, values, "(nothing yet)")

    def reply(self, text: str) -> str | None:
        """An answer to the agent's text; None: they leave."""
        said, values = self._told(lambda: self._card.reply(text))
        return None if said is None else self._reworded(said, values, text)

    def _told(self, act: Callable[[], str | None]) -> tuple[str | None, list[Forms]]:
        """What the card user says, and the values in it."""
        self.said.now.clear()
        text = act()
        return text, [forms for name in sorted(self.said.now) for forms in self._forms(name)]

    def _forms(self, name: str) -> list[Forms]:
        """The ways to say a slot, and those to say it wrong at first."""
        slot = self._task.slots[name]
        values = [slot.value, *([self._task.mistaken[name]] if name in self._task.mistaken else [])]
        return [slot.kind.forms(value, self._today) for value in values]

    def _reworded(self, text: str, values: list[Forms], heard: str) -> str:
        def read(proposal: dict[str, Any]) -> str | Objection:
            said: str = proposal["text"]
            return self._wording.objection(text, said, values) or said.strip()

        messages = self._source.prompt.messages(
            manner=MANNERS[self._persona.manner],
            is_lower=IS_LOWER if self._persona.is_lower else "",
            agent=heard,
            text=text,
        )
        return ask(self._source, self._session, messages, text_schema(text), read) or text
