"""How a user says which record is meant, and how an agent finds it: by id, by a text, by a filter,
or by way of another record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.plan import Read, Source
from selenite.agent.values.compounds import COMPOUND
from selenite.agent.values.kind import Value, spoken
from selenite.agent.values.texts import Flag, Reference, Text

_DEPTH = 2  # records on the way, at most


@dataclass(frozen=True)
class Target:
    """A record: its id's source, and how the user calls it (slots in braces)."""

    id: Source
    said: str


def by_id(draft: Draft, entity: str, id: str) -> Target:
    """The user knows the id."""
    kind = draft.domain.by_entity[entity].id_kind
    words = spoken(entity)
    given = draft.give(f"{entity}_id", f"{words} id", kind, id)
    return Target(given, f"the {words} {{{given.slot}}}")


def locate(
    draft: Draft, entity: str, id: str, depth: int = _DEPTH, indirect: bool = False
) -> Target:
    """A way to a record: a random one of those that lead to it alone.

    ``indirect``: not by id. Raises ``Unfit`` where there is no way then.
    """
    ways: list[Callable[[Draft, str, str], Target | None]] = [_by_search, _by_filter]
    ways.append(partial(_by_way, depth=depth))
    draft.rng.shuffle(ways)
    if not indirect and draft.rng.random() < 0.45:
        return by_id(draft, entity, id)
    for way in ways:
        found = way(draft, entity, id)
        if found is not None:
            return found
    if indirect:
        raise Unfit(f"no way to {id}")
    return by_id(draft, entity, id)


def _by_search(draft: Draft, entity: str, id: str) -> Target | None:
    record = draft.world.record(entity, id)
    for tool in draft.tools("search", entity):
        names = [name for name in tool.options["texts"] if record.get(name)]
        for name in draft.rng.sample(names, len(names)):
            query = record[name]
            parameter = tool.param_of("query").name
            if _items(draft, tool.name, {parameter: query}) != [id]:
                continue
            field = draft.domain.by_entity[entity].by_name[name]
            given = draft.give(
                f"{entity}_{name}", f"{spoken(entity)}'s {field.words}", field.kind, query
            )
            step, _ = draft.call(tool, {parameter: given})
            said = f"the {spoken(entity)} with the {field.words} {{{given.slot}}}"
            return Target(Read(step, ("items", 0, "id")), said)
    return None


def _by_filter(draft: Draft, entity: str, id: str) -> Target | None:
    record = draft.world.record(entity, id)
    for tool in draft.tools("list", entity):
        for param in draft.rng.sample(tool.params, len(tool.params)):
            name, kind = param.field, param.kind
            if name not in record or isinstance(kind, (Reference, Flag, *COMPOUND)):
                continue
            if _items(draft, tool.name, {param.name: record[name]}) != [id]:
                continue
            words = spoken(name)
            given = draft.give(
                f"{entity}_{name}", f"{spoken(entity)}'s {words}", kind, record[name]
            )
            step, _ = draft.call(tool, {param.name: given})
            link = "of" if isinstance(kind, Text) else "whose " + words + " is"
            said = f"the {spoken(entity)} {link} {{{given.slot}}}"
            return Target(Read(step, ("items", 0, "id")), said)
    return None


def _by_way(draft: Draft, entity: str, id: str, depth: int) -> Target | None:
    """By a record that this one refers to, and that has no other of its kind."""
    record = draft.world.record(entity, id)
    if depth == 0:
        return None
    for tool in draft.tools("list", entity):
        for param in tool.params:
            if not isinstance(param.kind, Reference) or param.field not in record:
                continue
            if _items(draft, tool.name, {param.name: record[param.field]}) != [id]:
                continue
            other = locate(draft, param.kind.entity, record[param.field], depth - 1)
            step, _ = draft.call(tool, {param.name: other.id})
            said = f"the {spoken(entity)} of {other.said}"
            return Target(Read(step, ("items", 0, "id")), said)
    return None


def _items(draft: Draft, tool: str, arguments: dict[str, Value]) -> list[str]:
    """Ids that a reading call would find."""
    reply = draft.world.fork().call(tool, arguments)
    return [item["id"] for item in reply.content["items"]] if reply.is_ok else []
