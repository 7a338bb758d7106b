"""How a server is started. What differs between episodes stands in it as ``{workspace}`` (where the
server works) and ``{private}`` (what it keeps for itself)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from selenite.agent.tools.tool import Effect
from selenite.errors import ConfigError

WORKSPACE = "{workspace}"
PRIVATE = "{private}"


@dataclass(frozen=True)
class Launch:
    """A server's name, which must do for a folder (else ``ConfigError``), command and habits."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)  # beside a few harmless variables
    effects: Mapping[str, Effect] = field(default_factory=dict)  # of tools, where hints say nothing
    failures: tuple[str, ...] = ()  # how texts begin that report a failure as if it were a result

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(
                f"an MCP server is named {self.name!r}: use letters, digits, _ and - only"
            )

    def filled(self, places: Mapping[str, Path]) -> Launch:
        """With these placeholders replaced, whatever braces there are besides."""

        def fill(text: str) -> str:
            for placeholder, path in places.items():
                text = text.replace(placeholder, str(path))
            return text

        environment = {name: fill(value) for name, value in self.environment.items()}
        return replace(self, command=tuple(map(fill, self.command)), environment=environment)
