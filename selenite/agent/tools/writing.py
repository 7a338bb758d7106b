"""Tools that make, change and remove records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tools.making import IDEMPOTENCY_KEY, Maker, result, shown
from selenite.agent.tools.naming import singular
from selenite.agent.tools.tool import Effect, Param, Tool
from selenite.agent.values.compounds import Several
from selenite.agent.values.kind import Value
from selenite.agent.values.texts import Reference, Text
from selenite.agent.world.reply import Code, Refusal

if TYPE_CHECKING:
    from selenite.agent.world.world import World

Record = Mapping[str, Any]


def plan(make: Maker) -> Iterator[Tool]:
    """All that an entity can have."""
    entity, record = make.entity, make.record()
    key = Param(
        make.style.param(IDEMPOTENCY_KEY),
        Text("code"),
        IDEMPOTENCY_KEY,
        False,
        "Calls with the same key are done once.",
    )
    yield make.tool(
        "create",
        "create",
        Effect.CREATE,
        ("Create a new {one}.", "Add a {one}; returns it with its id.", "Make a {one}."),
        [
            *(make.of_field(field, field.required) for field in entity.fields),
            *([key] if make.rng.random() < 0.3 else []),
        ],
        record,
    )
    mutable = [field for field in entity.fields if field.mutable]
    if mutable:
        yield make.tool(
            "update",
            "update",
            Effect.UPDATE,
            ("Change some fields of a {one}.", "Update a {one}; what is not given stays."),
            [make.id(), *(make.of_field(field, False) for field in mutable)],
            record,
        )
    for field in make.some(mutable, 0, 2):
        yield make.tool(
            "update",
            "update",
            Effect.UPDATE,
            (f"Set the {field.words} of a {{one}}.", f"Change a {{one}}'s {field.words}."),
            [make.id(), make.of_field(field, True)],
            record,
            name_verb=f"set_{field.name}",
        )
    yield make.tool(
        "delete",
        "delete",
        Effect.DELETE,
        ("Delete a {one} for good.", "Remove a {one}. This cannot be undone."),
        [make.id()],
        result(deleted=entity.id_kind.schema()),
    )
    yield make.tool(
        "duplicate",
        "create",
        Effect.CREATE,
        ("Make a copy of a {one}.", "Duplicate a {one}; the copy begins anew."),
        [make.id("What is copied.")],
        record,
        name_verb="duplicate",
    )
    for field in mutable:
        if isinstance(field.kind, Several):
            item = make.param(singular(field.name), field.kind.of)
            for verb, adds in (("add", True), ("remove", False)):
                yield make.tool(
                    "items",
                    "update",
                    Effect.UPDATE,
                    (f"{verb.capitalize()} one of the {field.words} of a {{one}}.",),
                    [make.id(), item],
                    record,
                    name_verb=f"{verb}_{item.field}",
                    field=field.name,
                    item=item.field,
                    adds=adds,
                )


def check_references(world: World, tool: Tool, values: Mapping[str, Value]) -> None:
    """Refuses ids of records that are not there."""
    for field, kind in world.domain.by_entity[tool.entity].references:
        if field.name in values and isinstance(kind, Reference):
            world.record(kind.entity, values[field.name])


def create(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A record with the given fields, at the beginning of its life."""
    entity = world.domain.by_entity[tool.entity]
    record = {field.name: given[field.name] for field in entity.fields if field.name in given}
    check_references(world, tool, record)
    if entity.states:
        record[STATUS] = entity.states[0]
    world.check_policies(tool, record)
    id = world.new_id(tool.entity)
    world.records.put(tool.entity, id, record)
    return shown(id, record)


def update(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """The given fields changed."""
    id, changes = given["id"], {name: value for name, value in given.items() if name != "id"}
    record = world.record(tool.entity, id)
    if not changes:
        raise Refusal(Code.INVALID_ARGUMENT, "Give at least one field to change.")
    check_references(world, tool, changes)
    world.check_policies(tool, record)
    changed = {**record, **changes}
    world.records.put(tool.entity, id, changed)
    return shown(id, changed)


def delete(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A record removed, to which no other refers."""
    id = given["id"]
    world.check_policies(tool, world.record(tool.entity, id))
    for other in world.domain.entities:
        for field, kind in other.references:
            if kind.entity != tool.entity:
                continue
            users = [i for i, r in world.records.of(other.name).items() if r.get(field.name) == id]
            if users:
                raise Refusal(
                    Code.FAILED_PRECONDITION,
                    f"{id} is in use by {', '.join(users[:3])}.",
                    in_use_by=users[:3],
                )
    world.records.remove(tool.entity, id)
    return {"deleted": id}


def duplicate(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A copy of a record, at the beginning of its life."""
    return create(world, tool, world.record(tool.entity, given["id"]))


def items(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """One more or one less in a list, in which nothing stands twice."""
    id, name = given["id"], tool.options["field"]
    record, item = world.record(tool.entity, id), given[tool.options["item"]]
    world.check_policies(tool, record)
    present = record.get(name, [])
    if tool.options["adds"]:
        if item in present:
            raise Refusal(Code.ALREADY_EXISTS, f"{item!r} is among the {name} already.")
        changed = [*present, item]
    else:
        if item not in present:
            raise Refusal(Code.NOT_FOUND, f"{item!r} is not among the {name}.")
        if len(present) == 1:
            raise Refusal(Code.FAILED_PRECONDITION, f"One of the {name} must stay.")
        changed = [other for other in present if other != item]
    world.records.put(tool.entity, id, {**record, name: changed})
    return shown(id, world.record(tool.entity, id))
