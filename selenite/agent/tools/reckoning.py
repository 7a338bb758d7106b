"""Tools that move amounts and references between records, and that compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from selenite.agent.ontology.entity import Field
from selenite.agent.tools.making import Maker, result
from selenite.agent.tools.reading import matching
from selenite.agent.tools.tool import Effect, Tool
from selenite.agent.values.kind import Value, spoken
from selenite.agent.values.numbers import Count, Measure, Money
from selenite.agent.world.reply import Code, Refusal

if TYPE_CHECKING:
    from selenite.agent.world.world import World


_STOCKS = frozenset(
    (
        *("amount", "balance", "budget", "stock", "pieces", "points", "seats", "slots", "credits"),
        *("hours", "minutes", "days", "places", "coins", "copies", "shares", "stake", "treasury"),
        *("deposit", "bonus", "data", "messages", "laptops", "crates", "bins", "portions", "beds"),
        *("capacity", "positions", "items", "quantity", "volume", "load", "honey", "water", "milk"),
        *("energy", "power", "weight", "area", "contribution", "reward", "prize", "sheets", "keys"),
    )
)
"""Amounts of which a part can be moved to another record; a height or a rating cannot."""


def plan(make: Maker) -> Iterator[Tool]:
    """All that an entity can have."""
    entity, number = make.entity, {"type": "number"}
    for field in entity.amounts:
        if field.mutable and field.required and field.name in _STOCKS:
            yield make.tool(
                "transfer",
                "transfer",
                Effect.TRANSACTION,
                (
                    f"Move {field.words} from one {{one}} to another. Both change, or neither.",
                    f"Transfer an amount of {field.words} between two {{many}}.",
                ),
                [
                    make.param(f"from_{entity.name}", entity.id_kind),
                    make.param(f"to_{entity.name}", entity.id_kind),
                    make.param("amount", _amount(field)),
                ],
                result(source=make.record(), target=make.record()),
                name_verb=f"transfer_{field.name}",
                plural=True,
                field=field.name,
            )
        chosen = make.some(make.filters(), 1, 3)
        yield make.tool(
            "total",
            "total",
            Effect.COMPUTE,
            (f"Add up the {field.words} of the {{many}} that match.",),
            [make.of_field(f, False) for f in chosen],
            result(total=number, average=number, records={"type": "integer"}),
            plural=True,
            name_verb=f"total_{field.name}",
            field=field.name,
        )
    for reference, kind in entity.references:
        if reference.mutable:
            yield make.tool(
                "reassign",
                "reassign",
                Effect.TRANSACTION,
                (f"Give all {{many}} of one {spoken(kind.entity)} to another.",),
                [make.param("old", kind), make.param("new", kind)],
                result(changed={"type": "array", "items": entity.id_kind.schema()}),
                plural=True,
                name_verb=f"reassign_{reference.name}",
                field=reference.name,
                of=kind.entity,
            )
    prices = [field for field in entity.amounts if isinstance(field.kind, Money)]
    counts = [field for field in entity.amounts if isinstance(field.kind, Count)]
    for price in prices[:1]:
        for times in counts[:1]:
            extra = make.some([f for f in entity.fields if f.required], 0, 3)
            extra = [f for f in extra if f not in (price, times)]
            fee = make.rng.choice((0, 2, 5, 10))
            yield make.tool(
                "quote",
                "quote",
                Effect.COMPUTE,
                (
                    f"What a {{one}} would cost: {price.words} times {times.words}, and a fee of "
                    f"{fee}%. Nothing is stored.",
                ),
                [make.of_field(f, True) for f in (price, times, *extra)],
                result(subtotal=number, fee=number, total=number),
                price=price.name,
                times=times.name,
                fee=fee,
            )


def transfer(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """An amount taken from one record and given to another."""
    name, amount = tool.options["field"], given["amount"]
    source, target = given[f"from_{tool.entity}"], given[f"to_{tool.entity}"]
    old_source, old_target = world.record(tool.entity, source), world.record(tool.entity, target)
    if source == target:
        raise Refusal(Code.INVALID_ARGUMENT, "Both are the same.", field=f"to_{tool.entity}")
    if amount <= 0:
        raise Refusal(Code.INVALID_ARGUMENT, "The amount must be above 0.", field="amount")
    kind = world.domain.by_entity[tool.entity].by_name[name].kind
    least = kind.least if isinstance(kind, Count) else 0
    if old_source[name] - amount < least:
        raise Refusal(
            Code.RESOURCE_EXHAUSTED,
            f"{source} has {old_source[name]:g} {spoken(name)} and must keep {least}.",
        )
    world.check_policies(tool, old_source)
    new_source = {**old_source, name: _rounded(old_source[name] - amount)}
    new_target = {**old_target, name: _rounded(old_target[name] + amount)}
    world.records.put(tool.entity, source, new_source)
    world.records.put(tool.entity, target, new_target)
    return {"source": {"id": source, **new_source}, "target": {"id": target, **new_target}}


def total(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A sum over those that match."""
    found = [r.get(tool.options["field"], 0) for _, r in matching(world, tool, given)]
    whole = _rounded(sum(found))
    average = _rounded(whole / len(found)) if found else 0
    return {"total": whole, "average": average, "records": len(found)}


def reassign(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """Every record that refers to one refers to the other."""
    name, old, new = tool.options["field"], given["old"], given["new"]
    for id in (old, new):
        world.record(tool.options["of"], id)
    changed = []
    for id, record in list(world.records.of(tool.entity).items()):
        if record.get(name) == old:
            world.records.put(tool.entity, id, {**record, name: new})
            changed.append(id)
    return {"changed": changed}


def quote(world: World, tool: Tool, given: Mapping[str, Value]) -> dict[str, Any]:
    """A price, and nothing else."""
    subtotal = _rounded(given[tool.options["price"]] * given[tool.options["times"]])
    fee = _rounded(subtotal * tool.options["fee"] / 100)
    return {"subtotal": subtotal, "fee": fee, "total": _rounded(subtotal + fee)}


def _amount(field: Field) -> Count | Measure | Money:
    kind = field.kind
    assert isinstance(kind, (Count, Measure, Money)), kind
    return kind


def _rounded(value: float) -> float:
    """To cents; whole numbers stay integers."""
    return value if isinstance(value, int) else round(value, 2)
