"""Tools that take records through their life, one at a time or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tools.making import Maker, result, shown
from selenite.agent.tools.naming import doing
from selenite.agent.tools.tool import Effect, Tool
from selenite.agent.values.compounds import Several
from selenite.agent.values.kind import Value, spoken
from selenite.agent.values.texts import Text
from selenite.agent.world.reply import Code, Refusal

if TYPE_CHECKING:
    from selenite.agent.world.world import World


def plan(make: Maker) -> Iterator[Tool]:
    """A tool for each move of the entity's life, and for some of several records."""
    entity = make.entity
    for move in entity.moves:
        done = doing(move.verb, "a {one}")
        reason = [make.param("reason", Text("note"), False)] if make.rng.random() < 0.25 else []
        yield make.tool(
            "move",
            move.verb,
            Effect.TRANSITION,
            (
                f"{done.capitalize()}, which must be {_either(move.sources)}.",
                f"Takes a {{one}} from {_either(move.sources)} to {spoken(move.target)}.",
                f"{done.capitalize()}, given by its id.",
            ),
            [make.id(), *reason],
            make.record(),
            sources=move.sources,
            target=move.target,
        )
    for move in entity.moves:
        if make.rng.random() < 0.3:
            ids = make.param(f"{entity.name}_ids", Several(entity.id_kind, 6))
            failed = result(id=entity.id_kind.schema(), code={"type": "string"})
            yield make.tool(
                "move_several",
                move.verb,
                Effect.TRANSITION,
                (f"{doing(move.verb, 'several {many}').capitalize()}; says which ones failed.",),
                [ids],
                result(
                    done={"type": "array", "items": entity.id_kind.schema()},
                    failed={"type": "array", "items": failed},
                ),
                plural=True,
                name_verb=f"bulk_{move.verb}",
                sources=move.sources,
                target=move.target,
                ids=ids.field,
            )


def move(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """One record in its next state."""
    return shown(given["id"], _moved(world, tool, given["id"], given.get("reason")))


def move_several(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """Those that can be moved are; the others are named with the reason."""
    done, failed = [], []
    for id in given[tool.options["ids"]]:
        try:
            _moved(world, tool, id, None)
            done.append(id)
        except Refusal as refusal:
            failed.append({"id": id, "code": refusal.code.value, "message": refusal.message})
    return {"done": done, "failed": failed}


def _moved(world: World, tool: Tool, id: str, reason: str | None) -> Mapping[str, Any]:
    record, target = world.record(tool.entity, id), tool.options["target"]
    if record[STATUS] not in tool.options["sources"]:
        raise Refusal(
            Code.FAILED_PRECONDITION,
            f"{id} is {spoken(record[STATUS])}; it must be {_either(tool.options['sources'])}.",
            field=STATUS,
        )
    world.check_policies(tool, record)
    changed = {**record, STATUS: target}
    if reason is not None:
        changed[f"{tool.verb}_reason"] = reason
    world.records.put(tool.entity, id, changed)
    return changed


def _either(states: tuple[str, ...]) -> str:
    return " or ".join(map(spoken, states))
