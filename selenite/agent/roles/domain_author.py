"""Who thinks of archetypes. A model's are lines of a category's file; what cannot be read, or gives
no domain whose tools all work, is refused with its reason."""

from __future__ import annotations

import json
import tomllib
from importlib.resources import files
from typing import Any, Protocol

from selenite.agent.ontology import archetypes
from selenite.agent.ontology.archetypes import Category
from selenite.agent.roles.archetype import Archetype, read_archetype
from selenite.agent.roles.ask import ask
from selenite.agent.roles.objection import Objection, Why
from selenite.agent.roles.outcomes import Fallback
from selenite.agent.roles.session import Session
from selenite.agent.roles.source import Source
from selenite.agent.roles.trial import working_domain

_LINES = {"type": "array", "items": {"type": "string", "maxLength": 160}}
_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "fields": {**_LINES, "minItems": 2, "maxItems": 12},
        "life": {**_LINES, "maxItems": 8},
    },
    "required": ["name", "fields", "life"],
    "additionalProperties": False,
}
_EXAMPLES = 2  # archetypes that are shown


class DomainAuthor(Protocol):
    """Adds to the archetypes of categories."""

    def proposal(self, category: Category, number: int) -> Archetype | None:
        """A new archetype, which is tried; None: there is none. ``number`` counts those asked."""


class PlainDomainAuthor:
    """The archetypes that were written by hand, and no others."""

    def proposal(self, category: Category, number: int) -> Archetype | None:
        """None."""
        return None


class LlmDomainAuthor:
    """A model's archetypes, each tried."""

    def __init__(self, seed: int, source: Source, session: Session) -> None:
        self._seed = seed
        self._source = source
        self._session = session

    def proposal(self, category: Category, number: int) -> Archetype | None:
        """A new archetype for the category; None where the model had none that works."""

        def read(answer: dict[str, Any]) -> Archetype | Objection:
            found = read_archetype(answer["name"], answer["fields"], answer["life"], category)
            if isinstance(found, Objection):
                return found
            domain = working_domain(found.entity, category, self._seed)
            return Objection(Why.TOOLS_FAIL, domain) if isinstance(domain, str) else found

        messages = self._source.prompt.messages(
            title=category.title,
            known=", ".join(entity.name for entity in category.archetypes),
            examples=_examples(category, number),
            number=str(number),
        )
        return ask(self._source, self._session, messages, _SCHEMA, read, Fallback.NONE)


def _examples(category: Category, number: int) -> str:
    """Some archetypes as they were written, others each time."""
    file = files(archetypes.__package__).joinpath("categories", f"{category.name}.toml")
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    entities = [(name, lines) for name, lines in table.items() if isinstance(lines, dict)]
    chosen = [entities[(number + i) % len(entities)] for i in range(_EXAMPLES)]
    return "\n".join(
        json.dumps({"name": name, "fields": lines["fields"], "life": lines.get("life", [])})
        for name, lines in chosen
    )
