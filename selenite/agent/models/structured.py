"""Replies that must be a JSON object of a schema: found in the text, checked, and asked for again.

text ──► object_in ──► chat.schema ──► dict
             └─────────────┴─────────► Wrong: the fault, and the turns that tell the model
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selenite.agent.models.completion import Completion
from selenite.agent.models.failure import Fault, Reason
from selenite.agent.models.schemas import schemas_of
from selenite.chat.schema import CallFault
from selenite.errors import ConfigError, ConversationError
from selenite.types import FinishReason, Message, ToolCall, ToolSpec

_START = re.compile(r'\{\s*["}]')  # of an object; other braces are prose
_DECODER = json.JSONDecoder()
_NAME = "reply"
_REASONS = {
    CallFault.NOT_JSON: Reason.NOT_JSON,
    CallFault.NOT_AN_OBJECT: Reason.NOT_JSON,
    CallFault.SCHEMA_VIOLATION: Reason.NOT_OF_SCHEMA,
    CallFault.UNCHECKABLE: Reason.UNCHECKABLE,
}


@dataclass(frozen=True)
class Wrong:
    """A reply that is not what was asked for."""

    fault: Fault
    turns: tuple[Message, ...]  # the reply and what is wrong with it, for the next request


class ReplySchema:
    """The schema of a reply's JSON object.

    Raises ``ConfigError`` for what is no JSON schema of an object.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        if schema.get("type") != "object":
            raise ConfigError(
                f"schema.type={schema.get('type')!r}: must be 'object'; put other values into a "
                "property of one"
            )
        try:
            self._checker = schemas_of([ToolSpec(_NAME, "", dict(schema))])
        except ConversationError as error:
            raise ConfigError(f"schema: {error}") from error
        self._schema = schema

    def read(self, completion: Completion) -> dict[str, Any] | Wrong:
        """The object in a reply's text."""
        fault: Fault | None
        try:
            found = object_in(completion.text)
        except ValueError as error:
            fault = Fault(Reason.NOT_JSON, str(error))
        else:
            fault = self._fault(found)
            if fault is None:
                value: dict[str, Any] = json.loads(found)
                return value
        if completion.finish_reason is FinishReason.LENGTH:
            detail = f"the reply was cut at the token limit ({fault.detail})"
            fault = Fault(Reason.TRUNCATED, detail)
        return Wrong(fault, self._turns(completion, fault))

    def _fault(self, found: str) -> Fault | None:
        check = self._checker.check(ToolCall(_NAME, found, ""))
        if check.fault is not None:
            place = f"{check.path}: " if check.path else ""
            return Fault(_REASONS[check.fault], place + check.detail)
        try:
            json.dumps(json.loads(found), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Fault(Reason.NOT_JSON, "an escape spells half of a surrogate pair")
        return None

    def _turns(self, completion: Completion, fault: Fault) -> tuple[Message, ...]:
        shorter = " Write a shorter one." if fault.reason is Reason.TRUNCATED else ""
        return (
            Message("assistant", completion.text or "(no text)"),
            Message(
                "user",
                f"Your reply cannot be used: {fault.detail}.{shorter} Answer again with one JSON "
                f"object and nothing else. Its JSON schema:\n{json.dumps(self._schema)}",
            ),
        )


def object_in(text: str) -> str:
    """The last JSON object in a text, whatever stands around it: prose, fences, a thought.

    Objects within objects do not count. Raises ``ValueError`` where there is none, and where one
    is broken: what looks whole inside a broken object is only a part of the answer.
    """
    if text.lstrip().startswith("<think>"):
        text = text.partition("</think>")[2]
    found, end = "", 0
    while start := _START.search(text, end):
        try:
            _, end = _DECODER.raw_decode(text, start.start())
        except RecursionError as error:
            raise ValueError("the JSON object is nested too deeply") from error
        except ValueError as error:
            raise ValueError(f"the JSON object is broken: {error}") from error
        found = text[start.start() : end]
    if not found:
        raise ValueError("there is no JSON object in the text")
    return found
