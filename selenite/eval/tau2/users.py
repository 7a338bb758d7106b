"""Users other than the one of slots: the one who says everything at once, and a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selenite.eval.tau2.agents import ModelPlayer
from selenite.eval.tau2.task import OUT_OF_SCOPE, STOP, TRANSFER, YES, Task, Turn
from selenite.types import Message, ToolSpec

BOTH = "text and a call in one turn"
UNKNOWN_TOOL = "a call of a tool that the user has not"
AT_ONCE = "the end before anything was asked"


class TicketUser:
    """Says all of its instructions in its first turn, a yes in its second one, and ends."""

    def __init__(self, task: Task) -> None:
        text = f"This is what I was told to ask for, in full:\n\n{task.scenario}"
        self._texts = [text, f"You have all that I know. {YES}"]

    def act(self, messages: Sequence[Message]) -> Turn:
        """The instructions, a yes, or the end."""
        return Turn(self._texts.pop(0) if self._texts else STOP)


class ModelUser:
    """A model with tau2's own prompt for users, held to what that prompt says of turns."""

    def __init__(self, player: ModelPlayer, tools: Sequence[ToolSpec]) -> None:
        self._player = player
        self._names = {tool.name for tool in tools}

    def act(self, messages: Sequence[Message]) -> Turn:
        """The model's next turn, with what it broke."""
        turn = self._player.act(messages)
        is_first = not any(message.role == "assistant" for message in messages)
        breach = ""
        if turn.calls and turn.text.strip():
            breach = BOTH
        elif any(call.name not in self._names for call in turn.calls):
            breach = UNKNOWN_TOOL
        elif is_first and any(sign in turn.text for sign in (STOP, TRANSFER, OUT_OF_SCOPE)):
            breach = AT_ONCE
        return replace(turn, breach=breach)
