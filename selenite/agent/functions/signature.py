"""A concept as one of the many tools that it could be: its name, its parameters, its words."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selenite.agent.functions.concept import Concept, Parameter
from selenite.types import ToolSpec

STYLES = ("snake", "snake", "snake", "dotted", "camel", "dotted_camel", "bare")


@dataclass(frozen=True)
class Function:
    """A tool that was made of a concept."""

    concept: Concept
    tool: ToolSpec
    names: Mapping[str, str]  # of the parameters that it has, by the concept's


def make_function(concept: Concept, style: str, rng: random.Random) -> Function:
    """Draws a tool; ``style`` is one of ``STYLES``."""
    dropped = {p.name[0] for p in concept.parameters if p.optional and rng.random() < 0.25}
    kept = [p for p in concept.parameters if p.name[0] not in dropped]
    if rng.random() < 0.2:
        rng.shuffle(kept)
    names = dict[str, str]()
    properties = dict[str, Any]()
    for parameter in kept:
        name = _likely(parameter.name, rng)
        if name in properties:
            name = parameter.name[0]
        name = _camel(name) if style in ("camel", "dotted_camel") else name
        names[parameter.name[0]] = name
        properties[name] = schema_of(parameter, rng)
    parameters = {
        "type": "object",
        "properties": properties,
        "required": [names[p.name[0]] for p in kept if not p.optional],
    }
    tool = ToolSpec(_name(concept, style, rng), rng.choice(concept.does), parameters)
    return Function(concept, tool, names)


def schema_of(parameter: Parameter, rng: random.Random) -> dict[str, Any]:
    """The JSON schema of a parameter, with a description in most."""
    listed = None if parameter.is_open or parameter.type == "boolean" else parameter.choices
    kind = parameter.items or parameter.type
    inner: dict[str, Any] = {"type": kind}
    if listed is not None:
        inner["enum"] = [typed(value, kind) for value in listed]
    schema = inner
    if parameter.type == "array":
        schema = {"type": "array", "items": inner}
    about = rng.choice(parameter.about)
    if parameter.default is not None and rng.random() < 0.5:
        about = f"{about.rstrip('.')}. Default is {_shown(parameter.default)}."
    elif parameter.optional and rng.random() < 0.2:
        about = f"{about.rstrip('.')} (optional)."
    if listed is not None and rng.random() < 0.2:
        about = f"{about.rstrip('.')}. One of: {', '.join(listed)}."
    if rng.random() < 0.93:
        schema["description"] = about
    if parameter.default is not None and rng.random() < 0.4:
        schema["default"] = parameter.default
    return schema


def typed(text: str, kind: str) -> Any:
    """A choice, as the schema's type has it."""
    match kind:
        case "integer":
            return int(text)
        case "number":
            return float(text) if "." in text else int(text)
        case "boolean":
            return text == "true"
    return text


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _likely(names: tuple[str, ...], rng: random.Random) -> str:
    """The first of the names in half of the cases."""
    return names[0] if rng.random() < 0.5 else rng.choice(names)


def _name(concept: Concept, style: str, rng: random.Random) -> str:
    noun = _likely(concept.name, rng).split()
    verb = _likely(concept.verbs, rng).split()
    module = rng.choice(concept.module)
    match style:
        case "snake":
            return "_".join([*verb, *noun])
        case "dotted":
            words = [*verb, *noun] if rng.random() < 0.5 else rng.choice([verb, noun])
            return f"{module}.{'_'.join(words)}"
        case "camel":
            return _camel("_".join([*verb, *noun]))
        case "dotted_camel":
            return f"{module.capitalize()}.{_camel('_'.join([*verb, *noun]))}"
    return "_".join(noun)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)
