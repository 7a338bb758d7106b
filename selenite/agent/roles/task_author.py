"""Who words a task's requests. What is wanted, known and decided stays as it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from string import Formatter
from typing import Any, Protocol

from selenite.agent.roles.ask import ask, text_schema
from selenite.agent.roles.objection import Objection, Why
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.roles.wording import Wording
from selenite.agent.tasks.plan import Phase
from selenite.agent.tasks.task import Task


class TaskAuthor(Protocol):
    """Words requests."""

    def worded(self, task: Task) -> Task:
        """The task, with the same slots in each request."""


class PlainTaskAuthor:
    """The words of the template."""

    def worded(self, task: Task) -> Task:
        """The same."""
        return task


class LlmTaskAuthor:
    """A model's words, where every slot is in its place."""

    def __init__(self, title: str, wording: Wording, source: Source, session: Session) -> None:
        self._title = title
        self._wording = wording
        self._source = source
        self._session = session

    def worded(self, task: Task) -> Task:
        """The task with requests in other words; those of the template where they are of no use."""
        return replace(task, phases=tuple(map(self._phase, task.phases)))

    def _phase(self, phase: Phase) -> Phase:
        def read(proposal: dict[str, Any]) -> str | Objection:
            text: str = proposal["text"].strip()
            slots = [(f"{{{name}}}",) for name in sorted(set(phase.slots_of_request))]
            return (
                self._wording.objection(phase.request, text, slots)
                or _braces(phase.slots_of_request, text)
                or text
            )

        messages = self._source.prompt.messages(title=self._title, text=phase.request)
        text = ask(self._source, self._session, messages, text_schema(phase.request), read)
        return phase if text is None else replace(phase, request=text)


def _braces(slots: list[str], text: str) -> Objection | None:
    """What ``str.format`` would make of a text that has not the same slots."""
    try:
        found = [part[1:] for part in Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        return Objection(Why.BRACES, f"its braces do not match ({error})")
    if Counter(found) != Counter((name, "", None) for name in slots):
        wanted = ", ".join(f"{{{name}}}" for name in slots) or "none"
        return Objection(Why.BRACES, f"it must have these in braces, each once: {wanted}")
    return None
