"""Asks a model for a proposal, lets code judge it, and tells the model what is wrong with it.

model ──JSON──► read ──► what it proposes: accepted
  ▲               └────► Objection: told, and asked again; after the last one code's own stands
  └───────────────────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from selenite.agent.models.failure import ModelError
from selenite.agent.roles.objection import Objection
from selenite.agent.roles.outcomes import Fallback
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.types import Message

T = TypeVar("T")
_LONGER = 3  # times as long as the text that it stands for, and some characters, one may be
_SOME = 200


def text_schema(before: str) -> dict[str, Any]:
    """Of a proposal that is a text in the place of another. Where an endpoint forces the schema, a
    model that rambles comes to an end."""
    longest = _LONGER * len(before) + _SOME
    return {
        "type": "object",
        "properties": {"text": {"type": "string", "minLength": 1, "maxLength": longest}},
        "required": ["text"],
        "additionalProperties": False,
    }


def ask(
    source: Source,
    session: Session,
    messages: Sequence[Message],
    schema: Mapping[str, Any],
    read: Callable[[dict[str, Any]], T | Objection],
    fallback: Fallback = Fallback.CODE,
) -> T | None:
    """What ``read`` makes of the model's object; None: nothing that can be used came.

    Either way it is counted, in the latter case by ``fallback`` and the last reason. Raises
    ``StorageError`` where cache or ledger cannot be written.
    """
    session.begin(source.role)
    turns = list(messages)
    repairs = 0
    while True:
        try:
            proposal = source.model.json(
                turns,
                schema,
                temperature=source.temperature,
                max_tokens=source.max_tokens,
                seed=session.seed_of(source.role),
            )
        except ModelError as failure:
            session.reject(source.role, fallback, failure.reason.value)
            return None
        found = read(proposal)
        if not isinstance(found, Objection):
            session.accept(source.role, source.label)
            return found
        if repairs == source.repairs:
            session.reject(source.role, fallback, found.why.value)
            return None
        repairs += 1
        session.outcomes.of(source.role).objections += 1
        said = f"That cannot be used: {found.detail}. Answer again, with JSON alone."
        turns.append(Message("assistant", json.dumps(proposal, ensure_ascii=False)))
        turns.append(Message("user", said))
