"""Hierarchical evolution of domains: categories, their domains, and specialised ones.

A domain is a function of the seed and its number, whoever makes it and in which order.
"""

from __future__ import annotations

from dataclasses import replace

from selenite.agent.ontology.archetypes import categories
from selenite.agent.ontology.entity import Entity, Field
from selenite.agent.ontology.operators import OPERATORS, Draft
from selenite.agent.randomness import stream
from selenite.agent.tools import families
from selenite.agent.tools.making import Maker
from selenite.agent.tools.naming import STYLES
from selenite.agent.tools.tool import Tool
from selenite.agent.values.numbers import Money
from selenite.agent.values.texts import Text
from selenite.agent.world.domain import Domain

_STEPS = (3, 9)  # operators of a domain, at least and at most
_SHARE = 0.75  # of the tools that an entity can have
_ESCALATE = (
    "Hand a case to a human colleague: what no policy allows you to do, and what no tool can do."
)
ESCALATION = Entity(
    "escalation",
    "ESC",
    (Field("subject", Text("code")), Field("reason", Text("note"))),
)
"""Every domain has it: what an agent may not do itself is handed to a human, which is a change of
the state and not only words."""


def make_domain(seed: int, number: int, extension: str = "") -> Domain:
    """Domain ``number`` of the repository that ``seed`` and the extension of archetypes name."""
    rng = stream(seed, "domain", number)
    known = categories(extension)
    category = known[number % len(known)]
    chosen = rng.sample(category.archetypes, rng.randint(1, 2))
    draft = Draft(
        category,
        category.with_references(chosen),
        rng.choice(sorted(STYLES)),
        rng.choice(("USD", "EUR", "GBP", "CHF")),
    )
    for _ in range(rng.randint(*_STEPS)):
        step = rng.choice(OPERATORS)(draft, rng)
        if step is not None:
            draft.steps.append(step)
    entities = [_priced(entity, draft.currency) for entity in draft.entities]
    id = f"{category.name}-{number:04d}"
    return Domain(
        id=id,
        category=category.name,
        title=f"{rng.choice(category.domains)} {number}",
        style=draft.style,
        currency=draft.currency,
        entities=(*entities, ESCALATION),
        tools=_tools(seed, id, draft, entities),
        policies=tuple(draft.policies),
        steps=tuple(draft.steps),
    )


def _tools(seed: int, id: str, draft: Draft, entities: list[Entity]) -> tuple[Tool, ...]:
    """Some of the tools that the entities can have, each name once, and the one that escalates."""
    style, found = STYLES[draft.style], dict[str, Tool]()
    for entity in entities:
        rng = stream(seed, "tools", id, entity.name)
        for tool in families.plan(Maker(id, entity, style, rng)):
            needed = tool.family in ("get", "create", "list", "move")
            if needed or rng.random() < _SHARE:
                found.setdefault(tool.name, tool)
    make = Maker(id, ESCALATION, style, stream(seed, "tools", id, "escalation"))
    create = next(tool for tool in families.plan(make) if tool.family == "create")
    found[create.name] = replace(create, description=_ESCALATE)
    return tuple(found.values())


def _priced(entity: Entity, currency: str) -> Entity:
    """In the domain's currency."""
    fields = tuple(
        replace(f, kind=replace(f.kind, currency=currency)) if isinstance(f.kind, Money) else f
        for f in entity.fields
    )
    return replace(entity, fields=fields)
