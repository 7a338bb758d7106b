"""What models are told, by role (``prompts.toml``). The hash of a prompt is part of the provenance
of what was made with it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from selenite.agent.roles.role import Role
from selenite.types import Message

_TABLE = tomllib.loads(files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))

MANNERS: Mapping[str, str] = _TABLE["manners"]
"""How a user writes, by the manner of their persona."""
IS_LOWER: str = _TABLE["is_lower"]
"""What is said besides of those who write small."""


@dataclass(frozen=True)
class Prompt:
    """A system message, and what is asked; braces are filled in. Examples have their values, and
    the text that is to be answered."""

    system: str
    ask: str
    examples: tuple[Mapping[str, str], ...] = ()

    @property
    def hash(self) -> str:
        """Twelve hexadecimal digits."""
        text = json.dumps([self.system, self.ask, list(map(dict, self.examples))])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def messages(self, **values: str) -> list[Message]:
        """The beginning of a conversation, which ends with what is asked."""
        found = [Message("system", self.system.format(**values))]
        for example in self.examples:
            found.append(Message("user", self.ask.format(**{**values, **example})))
            found.append(Message("assistant", json.dumps({"text": example["answer"]})))
        return [*found, Message("user", self.ask.format(**values))]


@cache
def prompt_of(role: Role) -> Prompt:
    """The prompt of a role. An agent has none: its system prompt is the task's."""
    table = _TABLE.get(role.value, {})
    return Prompt(table.get("system", ""), table.get("ask", ""), tuple(table.get("examples", ())))
