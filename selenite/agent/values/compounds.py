"""Values made of others: several of one kind, and objects."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from selenite.agent.values.kind import Kind, Value, spoken, unreadable


@dataclass(frozen=True)
class Several(Kind):
    """Some different values of one kind, in no order."""

    of: Kind
    most: int = 4

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.of.schema(), "minItems": 1}

    def accepts(self, value: Value) -> bool:
        return isinstance(value, list) and bool(value) and all(map(self.of.accepts, value))

    def canonical(self, value: Value) -> Value:
        return [self.of.canonical(item) for item in value]

    def draw(self, rng: random.Random, today: date) -> Value:
        drawn = (self.of.draw(rng, today) for _ in range(rng.randint(1, self.most)))
        return list({str(value): value for value in drawn}.values())

    def forms(self, value: Value, today: date) -> list[str]:
        said = [self.of.forms(item, today)[0] for item in value]
        if len(said) == 1:
            return said
        found = ["; ".join(said)]
        if not any("," in item or " and " in item or " or " in item for item in said):
            found.append(f"{', '.join(said[:-1])} and {said[-1]}")
        return found

    def read(self, text: str, today: date) -> Value:
        if "; " in text:
            parts = text.split("; ")
        else:
            parts = re.split(r", | and ", text)
            if len(parts) > 1 and any("," in form for form in parts):
                raise unreadable(text, "list")
        try:
            return [self.of.read(part, today) for part in parts]
        except ValueError:
            return [self.of.read(text, today)]


@dataclass(frozen=True)
class Group(Kind):
    """An object with fields, all of which it has."""

    fields: tuple[tuple[str, Kind], ...]

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {name: kind.schema() for name, kind in self.fields},
            "required": [name for name, _ in self.fields],
            "additionalProperties": False,
        }

    def accepts(self, value: Value) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() == dict(self.fields).keys()
            and all(kind.accepts(value[name]) for name, kind in self.fields)
        )

    def canonical(self, value: Value) -> Value:
        return {name: kind.canonical(value[name]) for name, kind in self.fields}

    def draw(self, rng: random.Random, today: date) -> Value:
        return {name: kind.draw(rng, today) for name, kind in self.fields}

    def forms(self, value: Value, today: date) -> list[str]:
        said = [(spoken(name), kind.forms(value[name], today)[0]) for name, kind in self.fields]
        return [
            "; ".join(f"{name}: {text}" for name, text in said),
            " | ".join(f"{name} = {text}" for name, text in said),
        ]

    def read(self, text: str, today: date) -> Value:
        names = [re.escape(spoken(name)) for name, _ in self.fields]
        for between, sign in (("; ", ": "), (r" \| ", " = ")):
            pattern = between.join(f"{name}{sign}(.*)" for name in names)
            if found := re.fullmatch(pattern, text):
                return {
                    name: kind.read(part, today)
                    for (name, kind), part in zip(self.fields, found.groups(), strict=True)
                }
        raise unreadable(text, f"object with {', '.join(name for name, _ in self.fields)}")


COMPOUND = (Several, Group)
"""Kinds whose values have no order and are not said in one word."""
