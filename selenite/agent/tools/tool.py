"""A tool of a world: what agents are told of it, and its signature without names and prose."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from selenite.agent.values.kind import Kind
from selenite.types import ToolSpec


class Effect(StrEnum):
    """What a tool does to the state."""

    READ = "read"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    TRANSITION = "transition"
    TRANSACTION = "transaction"
    COMPUTE = "compute"

    @property
    def only_reads(self) -> bool:
        """Whether the state stays as it is."""
        return self in (Effect.READ, Effect.COMPUTE)


@dataclass(frozen=True)
class Param:
    """A parameter. ``name`` is what agents write, ``field`` what it stands for in the world."""

    name: str
    kind: Kind
    field: str
    required: bool = True
    doc: str = ""


@dataclass(frozen=True)
class Tool:
    """A tool. ``family`` names the code that runs it, ``options`` are that code's."""

    name: str
    domain: str
    family: str
    effect: Effect
    entity: str  # whose records it is about; "": none
    description: str
    params: tuple[Param, ...]
    returns: Mapping[str, Any]  # JSON schema of a result
    verb: str  # what policies speak of
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, Param]:
        return {param.name: param for param in self.params}

    def param_of(self, name: str) -> Param:
        """The parameter that stands for a field."""
        return next(param for param in self.params if param.field == name)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        properties = {}
        for param in self.params:
            schema = param.kind.schema()
            if param.doc:
                said = schema.get("description")
                schema["description"] = f"{param.doc} {said}" if said else param.doc
            properties[param.name] = schema
        return {
            "type": "object",
            "properties": properties,
            "required": [param.name for param in self.params if param.required],
            "additionalProperties": False,
        }

    @property
    def spec(self) -> ToolSpec:
        """As a model is offered it."""
        return ToolSpec(self.name, self.description, self.parameters)

    def record(self) -> dict[str, Any]:
        """As a file has it."""
        return {
            "name": self.name,
            "domain": self.domain,
            "effect": self.effect.value,
            "description": self.description,
            "parameters": self.parameters,
            "returns": self.returns,
        }


def signature(record: Mapping[str, Any]) -> str:
    """A hash of what a tool is without its names and prose: effect, the sorted shapes of its
    parameters, how many it requires, and the shape of what it returns. Made of ``Tool.record``
    alone, so that anyone can count distinct ones."""
    parameters = record["parameters"]
    shapes = sorted(map(_shape, parameters["properties"].values()))
    parts = (record["effect"], shapes, len(parameters["required"]), _shape(record["returns"]))
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def _shape(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"enum{len(schema['enum'])}"
    kind = schema["type"]
    if kind == "object":
        members = sorted(map(_shape, schema.get("properties", {}).values()))
        return f"object({','.join(members)};{len(schema.get('required', ()))})"
    if kind == "array":
        return f"array({_shape(schema['items'])})"
    return (
        kind
        + (f":{schema['format']}" if "format" in schema else "")
        + (":pattern" if "pattern" in schema else "")
    )
