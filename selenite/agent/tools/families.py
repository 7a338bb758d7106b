"""The families of tools by name: the code that runs each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selenite.agent.tools import moving, reading, reckoning, writing
from selenite.agent.tools.making import Maker
from selenite.agent.tools.tool import Tool
from selenite.agent.values.kind import Value

if TYPE_CHECKING:
    from selenite.agent.world.world import World

Run = Callable[["World", Tool, Mapping[str, Value]], dict[str, Any]]

_FAMILIES: dict[str, Run] = {
    "get": reading.get,
    "list": reading.list_,
    "search": reading.search,
    "count": reading.count,
    "extreme": reading.extreme,
    "create": writing.create,
    "update": writing.update,
    "delete": writing.delete,
    "duplicate": writing.duplicate,
    "items": writing.items,
    "move": moving.move,
    "move_several": moving.move_several,
    "transfer": reckoning.transfer,
    "total": reckoning.total,
    "reassign": reckoning.reassign,
    "quote": reckoning.quote,
}


def plan(make: Maker) -> Iterator[Tool]:
    """Every tool that an entity can have."""
    for module in (reading, writing, moving, reckoning):
        yield from module.plan(make)


def run(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """What a call does and returns. ``given`` are values by field, already checked.

    Raises ``Refusal``, and has changed nothing then.
    """
    return _FAMILIES[tool.family](world, tool, given)
