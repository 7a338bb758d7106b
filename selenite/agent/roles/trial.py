"""Does a domain evolve from an archetype in which every tool works: tried as the repository's
domains are (``ontology/acceptance.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from selenite.agent.ontology.acceptance import STATES
from selenite.agent.ontology.archetypes import Category
from selenite.agent.ontology.entity import Entity
from selenite.agent.ontology.operators import OPERATORS, Draft
from selenite.agent.randomness import stream
from selenite.agent.tools import families
from selenite.agent.tools.making import Maker
from selenite.agent.tools.naming import STYLES
from selenite.agent.tools.tool import Tool
from selenite.agent.world.domain import Domain
from selenite.agent.world.sample import draw_arguments, sample_world
from selenite.errors import MissingExtraError

_DOMAINS = 4  # that are evolved, at most: a rule of evolution can make a tool useless by chance
_STEPS = (3, 9)  # operators of a domain, at least and at most


def working_domain(entity: Entity, category: Category, seed: int) -> Domain | str:
    """A domain with the archetype; what is wrong with the last one that was tried, if all are.

    The category need not have the archetype yet.
    """
    wider = replace(category, archetypes=(*category.archetypes, entity))
    fault = ""
    for number in range(_DOMAINS):
        domain = _evolved(entity, wider, seed, number)
        found = next(_faults(domain), None)
        if found is None:
            return domain
        fault = found
    return fault


def _evolved(entity: Entity, category: Category, seed: int, number: int) -> Domain:
    """With every tool that its entities can have."""
    rng = stream(seed, "trial", category.name, entity.name, number)
    draft = Draft(category, category.with_references([entity]), rng.choice(sorted(STYLES)), "EUR")
    for _ in range(rng.randint(*_STEPS)):
        rng.choice(OPERATORS)(draft, rng)
    id = f"{category.name}-{entity.name}-{number}"
    tools: dict[str, Tool] = {}
    for part in draft.entities:
        make = Maker(id, part, STYLES[draft.style], stream(seed, "trial tools", id, part.name))
        for tool in families.plan(make):
            tools.setdefault(tool.name, tool)
    return Domain(
        id=id,
        category=category.name,
        title=f"{category.domains[0]} {number}",
        style=draft.style,
        currency=draft.currency,
        entities=tuple(draft.entities),
        tools=tuple(tools.values()),
        policies=tuple(draft.policies),
        steps=(),
    )


def _faults(domain: Domain) -> Iterator[str]:
    """Tools that never succeed in any state, or return what they do not say."""
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError as error:
        raise MissingExtraError("jsonschema", "agent", "trying tools") from error
    missing: dict[str, Tool] = {}
    for tool in domain.tools:
        if len(tool.by_name) < len(tool.params):
            yield f"{tool.name} has a parameter twice"
        missing[tool.name] = tool
    for state in range(STATES):
        base = sample_world(domain, state)
        rng = stream(0, "trial", domain.id, state)
        for tool in list(missing.values()):
            reply = base.fork().call(tool.name, draw_arguments(base, tool, rng))
            if reply.is_ok:
                del missing[tool.name]
                if not Draft202012Validator(tool.returns).is_valid(reply.content):
                    yield f"{tool.name} returns what its schema does not allow"
    yield from (f"{name} never succeeds" for name in missing)
