"""A trajectory as text, for a model that judges it: what was wanted, the rules, what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selenite.agent.episodes.trajectory import Trajectory
from selenite.types import Message

_LONGEST = 600  # characters of one message; tools can return much


def case_of(trajectory: Trajectory) -> dict[str, str]:
    """The values of the judge's prompt."""
    task = trajectory.task
    domain = trajectory.domain
    record = task.record()
    known = record["known"] | record["withheld"]
    return {
        "requests": " ".join(phase.request.format(**known) for phase in task.phases),
        "goal": "; ".join(map(_predicate, record["goal"])) or "nothing is changed",
        "must_say": _listed(record["must_say"]),
        "forbidden": _listed(record["forbidden"]),
        "policies": " ".join(policy.sentence() for policy in domain.policies) or "none",
        "conversation": "\n".join(map(_line, trajectory.messages[1:])),
    }


def _predicate(predicate: Mapping[str, Any]) -> str:
    match predicate:
        case {"kind": "made", "entity": entity, "fields": fields}:
            return f"there is a new {entity} with {fields}"
        case {"kind": "changed", "entity": entity, "id": id, "field": field, "value": value}:
            return f"{field} of {entity} {id} is {value!r}"
        case _:
            return f"{predicate['entity']} {predicate['id']} is gone"


def _line(message: Message) -> str:
    calls = [f"CALL {call.name} {call.arguments}" for call in message.tool_calls]
    text = message.content
    said = [f"{message.role.upper()}: {_cut(text)}"] if text else []
    return "\n".join([*said, *map(_cut, calls)])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _listed(items: Sequence[str]) -> str:
    return "; ".join(items) or "nothing"
