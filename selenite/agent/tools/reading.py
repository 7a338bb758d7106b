"""Tools that read: get, list, search, count, and the largest or smallest of something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selenite.agent.ontology.entity import Entity
from selenite.agent.tools.making import Maker, result, several, shown
from selenite.agent.tools.tool import Effect, Param, Tool
from selenite.agent.values.compounds import COMPOUND
from selenite.agent.values.kind import Kind, Value
from selenite.agent.values.numbers import Count
from selenite.agent.values.texts import Choice, Text
from selenite.agent.world.reply import Code, Refusal

if TYPE_CHECKING:
    from selenite.agent.world.world import World

Record = Mapping[str, Any]
GROUP = "group_by"
PAGE = "_page"
"""What the number of a page stands for."""
_PAGE = 5  # records, where no limit is given


def plan(make: Maker) -> Iterator[Tool]:
    """All that an entity can have."""
    entity, record = make.entity, make.record()
    yield make.tool(
        "get",
        "get",
        Effect.READ,
        ("Get one {one} by its id.", "Returns the {one} with the given id.", "Look up a {one}."),
        [make.id()],
        record,
    )
    filters = make.some(make.filters(), 1, 3)
    paging = [_extra(make, "limit", Count(1, 20)), _extra(make, "page", Count(1, 9))]
    simple = [f.name for f in entity.fields if f.required and not isinstance(f.kind, COMPOUND)]
    sortable = simple[: make.rng.randint(2, 4)]
    order = [_extra(make, "sort_by", Choice(tuple(sortable)))] if len(sortable) > 1 else []
    yield make.tool(
        "list",
        "list",
        Effect.READ,
        (
            "List {many}, optionally filtered. Results come in pages.",
            "Returns {many} that match all given filters, page by page.",
        ),
        [*(make.of_field(field, False) for field in filters), *_unlike([*order, *paging], entity)],
        several(record, total={"type": "integer"}),
        plural=True,
    )
    texts = [field.name for field in entity.fields if isinstance(field.kind, Text)]
    if texts:
        brief = result(id=entity.id_kind.schema(), match={"type": "string"})
        yield make.tool(
            "search",
            "search",
            Effect.READ,
            ("Search {many} by text.", "Find {many} whose texts contain the words of the query."),
            [make.param("query", Text("title"))],
            several(brief),
            plural=True,
            texts=texts,
        )
    choices = [field for field in make.filters() if isinstance(field.kind, Choice)]
    if choices:
        by = tuple(field.name for field in choices)
        chosen = make.some(make.filters(), 0, 2)
        group = [make.param(GROUP, Choice(by))] if len(by) > 1 else []
        yield make.tool(
            "count",
            "count",
            Effect.READ,
            ("Count {many} by group.", "How many {many} there are in each group."),
            [*group, *(make.of_field(field, False) for field in chosen)],
            result(counts={"type": "object"}, total={"type": "integer"}),
            plural=True,
            by=by[0],
        )
    for field in entity.amounts[:2]:
        for which in make.rng.sample(("highest", "lowest"), make.rng.randint(0, 2)):
            chosen = make.some(make.filters(), 0, 2)
            among = "among those that match" if chosen else "of all"
            yield make.tool(
                "extreme",
                which,
                Effect.READ,
                (f"The {{one}} with the {which} {field.words} {among}.",),
                [make.of_field(f, False) for f in chosen],
                record,
                name_verb=f"{which}_{field.name}",
                by=field.name,
                is_highest=which == "highest",
            )


def _extra(make: Maker, name: str, kind: Kind) -> Param:
    """A parameter that stands for no field, even if one has its name."""
    return Param(make.style.param(name), kind, f"_{name}", False)


def _unlike(params: list[Param], entity: Entity) -> Iterator[Param]:
    """Those that do not have the name of a field."""
    return (param for param in params if param.field[1:] not in entity.by_name)


def matching(world: World, tool: Tool, given: Mapping[str, Value]) -> list[tuple[str, Record]]:
    """Records that have all given values of fields."""
    wanted = {
        name: value
        for name, value in given.items()
        if name in world.domain.by_entity[tool.entity].by_name
    }
    return [
        (id, record)
        for id, record in world.records.of(tool.entity).items()
        if all(record.get(name) == value for name, value in wanted.items())
    ]


def get(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """One record."""
    return shown(given["id"], world.record(tool.entity, given["id"]))


def list_(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A page of those that match."""
    found = matching(world, tool, given)
    by = given.get("_sort_by")
    if by is not None:
        found.sort(key=lambda item: (item[1][by], item[0]))
    size, page = given.get("_limit", _PAGE), given.get(PAGE, 1)
    first = (page - 1) * size
    more = {"next_page": page + 1} if first + size < len(found) else {}
    return {
        "items": [shown(*item) for item in found[first : first + size]],
        "total": len(found),
        **more,
    }


def search(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """Those with every word of the query in one of their texts."""
    words = given["query"].lower().split()
    items = []
    for id, record in world.records.of(tool.entity).items():
        for name in tool.options["texts"]:
            text = record.get(name)
            if text is not None and all(word in text.lower() for word in words):
                items.append({"id": id, "match": text})
                break
    return {"items": items}


def count(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """How many there are of each value of a choice."""
    by = given.get(GROUP, tool.options["by"])
    wanted = {name: value for name, value in given.items() if name != GROUP}
    found = Counter(record.get(by) for _, record in matching(world, tool, wanted))
    counts = {str(value): number for value, number in sorted(found.items(), key=str)}
    return {"counts": counts, "total": found.total()}


def extreme(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """The record with the most or the least of an amount; of equal ones the oldest."""
    by, sign = tool.options["by"], 1 if tool.options["is_highest"] else -1
    found = [item for item in matching(world, tool, given) if by in item[1]]
    if not found:
        raise Refusal(Code.NOT_FOUND, "Nothing matches.")
    return shown(*max(found, key=lambda item: sign * item[1][by]))
