"""Names of tools for endpoints that take letters, digits, _ and - alone, and the way back."""

from __future__ import annotations

import dataclasses
import itertools
import re

from selenite.agent.models.completion import Completion
from selenite.agent.models.request import Request
from selenite.types import ToolCall

_OTHER = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST = 64  # characters


class PlainNames:
    """A plain name for each tool of a request, no two the same."""

    def __init__(self, request: Request) -> None:
        names = [tool.name for tool in request.tools]
        self._plain = {name: name for name in names if _plain(name) == name}
        self._names = dict(self._plain)  # by plain name
        for name in names:
            if name not in self._plain:
                plain = self._free(_plain(name))
                self._plain[name] = plain
                self._names[plain] = name

    def hide(self, request: Request) -> Request:
        """The request with plain names in its tools, its choice and its history."""
        choice = request.tool_choice
        return dataclasses.replace(
            request,
            tools=tuple(
                dataclasses.replace(tool, name=self._plain[tool.name]) for tool in request.tools
            ),
            tool_choice=None if choice is None else self._plain.get(choice, choice),
            messages=tuple(
                dataclasses.replace(
                    message, tool_calls=tuple(map(self._hidden, message.tool_calls))
                )
                for message in request.messages
            ),
        )

    def show(self, completion: Completion) -> Completion:
        """The completion with the tools' own names."""
        calls = tuple(
            dataclasses.replace(call, name=self._names.get(call.name, call.name))
            for call in completion.tool_calls
        )
        return dataclasses.replace(completion, tool_calls=calls)

    def _hidden(self, call: ToolCall) -> ToolCall:
        return dataclasses.replace(call, name=self._plain.get(call.name) or _plain(call.name))

    def _free(self, plain: str) -> str:
        numbered = (f"{plain[: _LONGEST - 8]}_{number}" for number in itertools.count(2))
        candidates = itertools.chain([plain], numbered)
        return next(name for name in candidates if name not in self._names)


def _plain(name: str) -> str:
    return _OTHER.sub("_", name)[:_LONGEST]
