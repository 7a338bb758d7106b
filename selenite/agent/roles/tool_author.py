"""Who describes the tools. Names, parameters, results and effects stay as they are.

All tasks of a domain are shown the same description: its requests follow from the domain alone, and
a process asks for each tool once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from selenite.agent.roles.ask import ask, text_schema
from selenite.agent.roles.objection import Objection
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.roles.wording import Wording
from selenite.agent.tools.tool import Tool


class Described:
    """Tools by domain and name, each with what came of asking for it. Threads may share it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Tool, Session]] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}

    def of(self, tool: Tool, ask: Callable[[], tuple[Tool, Session]]) -> tuple[Tool, Session]:
        """What ``ask`` gave for a tool the first time. Where an endpoint gave no reply it is asked
        again for the next task."""
        place = tool.domain, tool.name
        with self._locks.setdefault(place, threading.Lock()):
            if place in self._found:
                return self._found[place]
            described, part = ask()
            if not part.outcomes.is_cut_off:
                self._found[place] = described, part
            return described, part

    def clear(self) -> None:
        """Forgets all."""
        self._found.clear()


class ToolAuthor(Protocol):
    """Describes tools."""

    def described(self, tool: Tool) -> Tool:
        """The tool, with the same name and the same schemas."""


class PlainToolAuthor:
    """The description that its family gave it."""

    def described(self, tool: Tool) -> Tool:
        """The same."""
        return tool


class LlmToolAuthor:
    """A model's description. ``known`` are tools that were described before, and is added to.

    ``part`` opens a session for a tool, which is merged into ``session`` each time that its tool is
    used: counts do not depend on which process asked first.
    """

    def __init__(
        self,
        title: str,
        wording: Wording,
        source: Source,
        session: Session,
        part: Callable[[Tool], Session],
        known: Described,
    ) -> None:
        self._title = title
        self._wording = wording
        self._source = source
        self._session = session
        self._part = part
        self._known = known

    def described(self, tool: Tool) -> Tool:
        """The tool with the model's description; its own where that is of no use."""

        def asked() -> tuple[Tool, Session]:
            part = self._part(tool)
            return self._asked(tool, part), part

        found, part = self._known.of(tool, asked)
        self._session.merge(part)
        return found

    def _asked(self, tool: Tool, session: Session) -> Tool:
        def read(proposal: dict[str, Any]) -> str | Objection:
            text: str = proposal["text"].strip()
            return self._wording.objection(tool.description, text) or text

        messages = self._source.prompt.messages(
            title=self._title,
            name=tool.name,
            parameters=", ".join(tool.by_name) or "none",
            text=tool.description,
        )
        text = ask(self._source, session, messages, text_schema(tool.description), read)
        return tool if text is None else replace(tool, description=text)
