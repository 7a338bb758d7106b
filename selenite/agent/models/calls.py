"""Tool calls of a reply against the tools that were offered, and the turns that tell what is wrong.

A repair is written in the form that models are trained on: the calls, and for each a result that
says the error.
"""

from __future__ import annotations

import dataclasses
import json

from selenite.agent.models.completion import Completion
from selenite.agent.models.failure import Fault, Reason
from selenite.agent.models.request import Request
from selenite.agent.models.schemas import schemas_of
from selenite.agent.models.structured import Wrong
from selenite.chat.schema import CallCheck, CallFault
from selenite.types import FinishReason, Message, ToolCall


class OfferedTools:
    """The tools of a request; raises ``ConversationError`` for two of one name or a bad schema."""

    def __init__(self, request: Request) -> None:
        self._schemas = schemas_of(request.tools)
        self._has_tools = bool(request.tools)
        self._choice = request.tool_choice

    def checked(self, completion: Completion) -> Completion:
        """The same, with ``call_checks``."""
        checks = tuple(self._schemas.check(call) for call in completion.tool_calls)
        return dataclasses.replace(completion, call_checks=checks)

    def judge(self, completion: Completion) -> Completion | Wrong:
        """The completion with its checks, if all is well."""
        completion = self.checked(completion)
        detail = self._detail(completion)
        if detail is None:
            return completion
        reason = Reason.WRONG_CALL
        if any(check.fault is CallFault.UNCHECKABLE for check in completion.call_checks):
            reason = Reason.UNCHECKABLE
        elif completion.finish_reason is FinishReason.LENGTH:
            reason, detail = Reason.TRUNCATED, f"the reply was cut at the token limit ({detail})"
        return Wrong(Fault(reason, detail), self._turns(completion, detail))

    def _detail(self, completion: Completion) -> str | None:
        """What is wrong first."""
        calls = completion.tool_calls
        if self._choice == "none" and calls:
            return "no tool may be called now; answer in text"
        if self._choice not in (None, "none", "auto"):
            wanted = "a tool" if self._choice == "required" else f"the tool {self._choice!r}"
            is_wanted = self._choice == "required"
            if not any(is_wanted or call.name == self._choice for call in calls):
                return f"{wanted} must be called"
        for check in completion.call_checks:
            if not check.valid:
                return _words(check)
        return None

    def _turns(self, completion: Completion, detail: str) -> tuple[Message, ...]:
        calls = completion.tool_calls
        if not (calls and self._has_tools):  # results without tools are refused by some
            text = completion.text or "(a tool call)"
            said = f"Your reply cannot be used: {detail}. Answer again."
            return (Message("assistant", text), Message("user", said))
        # Arguments that are no object would make some endpoints refuse the history.
        shown = tuple(_presentable(call) for call in calls)
        results = [
            Message("tool", _result(call, check, detail), tool_call_id=call.id)
            for call, check in zip(calls, completion.call_checks, strict=True)
        ]
        return (Message("assistant", completion.text, tool_calls=shown), *results)


def _words(check: CallCheck) -> str:
    return f"{check.path}: {check.detail}" if check.path else check.detail


def _result(call: ToolCall, check: CallCheck, detail: str) -> str:
    if check.valid:
        return f"Error: not run, since the reply cannot be used: {detail}. Answer again."
    written = "" if _is_object(call.arguments) else f" You wrote: {call.arguments}"
    return f"Error: {_words(check)}. Make the call again.{written}"


def _presentable(call: ToolCall) -> ToolCall:
    arguments = call.arguments if _is_object(call.arguments) else "{}"
    return ToolCall(call.name or "unknown", arguments, call.id)


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except (ValueError, RecursionError):
        return False
