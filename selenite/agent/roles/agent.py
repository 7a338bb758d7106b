"""An agent that is a model: each turn is asked for with the tools, and taken as it comes.

The world answers wrong calls itself; no loss is on a turn that has one, or that was cut. Where no
turn comes at all the agent gives up, and the episode ends by ``GAVE_UP``, which no judge lets pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selenite.agent.episodes.trajectory import Turn
from selenite.agent.models.failure import ModelError
from selenite.agent.roles.arguments import fit, read_arguments
from selenite.agent.roles.outcomes import Fallback
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.tools.tool import Tool
from selenite.agent.users.user import User
from selenite.types import FinishReason, Message, ToolCall

GAVE_UP = "gave_up"
"""How an episode ends whose agent has no turn."""

_LAST_WORDS = "I cannot go on."


class LlmAgent:
    """An ``Agent``. ``tools`` are those that it has."""

    def __init__(self, tools: Sequence[Tool], source: Source, session: Session) -> None:
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self._source = source
        self._session = session
        self.has_given_up = False

    def act(self, messages: Sequence[Message]) -> Turn:
        """The model's next turn; the last words where there is none."""
        if self.has_given_up:
            return Turn(_LAST_WORDS, is_trained=False)
        self._session.begin(self._source.role)
        try:
            completion = self._source.model.complete(
                messages,
                tools=[tool.spec for tool in self._tools.values()],
                temperature=self._source.temperature,
                max_tokens=self._source.max_tokens,
                seed=self._session.seed_of(self._source.role),
                repair_calls=False,
            )
        except ModelError as failure:
            self._session.reject(self._source.role, Fallback.NONE, failure.reason.value)
            self.has_given_up = True
            return Turn(_LAST_WORDS, is_trained=False)
        self._session.accept(self._source.role, self._source.label)
        calls = tuple(map(self._call, completion.tool_calls))
        is_right = all(fit(self._tools.get(name), arguments) for name, arguments in calls)
        is_whole = completion.finish_reason is FinishReason.STOP
        return Turn(completion.text, calls, is_trained=is_right and is_whole)

    def _call(self, call: ToolCall) -> tuple[str, Mapping[str, object]]:
        # A history with a call that has no name is refused by some endpoints.
        return call.name or "unknown", read_arguments(call.arguments, self._tools.get(call.name))


class LeavingUser:
    """A user who leaves an agent that has given up."""

    def __init__(self, user: User, agent: LlmAgent) -> None:
        self._user = user
        self._agent = agent

    @property
    def said(self) -> frozenset[str]:
        """Slots that were told so far."""
        return frozenset(self._user.said)

    @property
    def ended(self) -> str:
        """Why the conversation was left."""
        return GAVE_UP if self._agent.has_given_up else self._user.ended

    @property
    def wish(self) -> int:
        """The user's."""
        return self._user.wish

    def open(self) -> str:
        """The user's."""
        return self._user.open()

    def reply(self, text: str) -> str | None:
        """The user's, while the agent goes on."""
        return None if self._agent.has_given_up else self._user.reply(text)
