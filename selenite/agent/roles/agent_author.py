"""Who introduces agents in their system prompts. The day, the rules and the policies are code's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from selenite.agent.episodes.style import AgentStyle
from selenite.agent.roles.ask import ask, text_schema
from selenite.agent.roles.objection import Objection
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.roles.wording import Wording
from selenite.agent.tasks.task import Task
from selenite.agent.world.world import World


class AgentAuthor(Protocol):
    """Introduces agents."""

    def introduced(self, style: AgentStyle, task: Task, world: World) -> AgentStyle:
        """The agent with its system prompt for a task: the same from the day's sentence on."""


class PlainAgentAuthor:
    """The introduction of the agent's style."""

    def introduced(self, style: AgentStyle, task: Task, world: World) -> AgentStyle:
        """The same."""
        return style


@dataclass(frozen=True)
class WrittenStyle(AgentStyle):
    """A style whose system prompt was written for one task."""

    text: str

    def system(self, task: Task, world: World) -> str:
        """The system prompt."""
        return self.text


class LlmAgentAuthor:
    """A model's introduction, and code's rules after it."""

    def __init__(self, wording: Wording, source: Source, session: Session) -> None:
        self._wording = wording
        self._source = source
        self._session = session

    def introduced(self, style: AgentStyle, task: Task, world: World) -> AgentStyle:
        """The agent as the model introduces it; as its style does where that is of no use."""
        before, rules = introduction_and_rules(style.system(task, world), world)
        title = world.domain.subject

        def read(proposal: dict[str, Any]) -> str | Objection:
            text: str = proposal["text"].strip()
            return self._wording.objection(before, text, [(title,)]) or text

        messages = self._source.prompt.messages(title=title, text=before)
        text = ask(self._source, self._session, messages, text_schema(before), read)
        if text is None:
            return style
        return WrittenStyle(style.number, style.is_parallel, style.says_steps, f"{text} {rules}")


def introduction_and_rules(text: str, world: World) -> tuple[str, str]:
    """The two parts of a system prompt: the rules begin with the sentence that says the day."""
    day = text.index(world.today.isoformat())
    start = text.rindex(". ", 0, day) + 2
    return text[: start - 1], text[start:]
