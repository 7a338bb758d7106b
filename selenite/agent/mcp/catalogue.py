"""MCP servers that can be installed and started: data, in ``servers.toml`` and in files like it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from selenite.agent.mcp.launch import PRIVATE, WORKSPACE
from selenite.agent.tools.tool import Effect
from selenite.config import Config, load
from selenite.errors import ConfigError

INSTALLED = "{installed}"
SHIPPED = Path(__file__).with_name("servers.toml")
_PLACEHOLDERS = (INSTALLED, WORKSPACE, PRIVATE)


class Server(Config):
    """One server: where it comes from, and how it is started (``Launch`` explains the rest)."""

    registry: Literal["pypi", "npm"]
    package: str
    version: str
    license: str
    beside: tuple[str, ...] = ()
    """Pins of what it needs, in the registry's own words: ``mcp==1.30.0``."""
    programs: tuple[str, ...] = ()  # that must be on this machine
    command: tuple[str, ...]
    environment: dict[str, str] = Field(default_factory=dict)
    effects: dict[str, Effect] = Field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @field_validator("command")
    @classmethod
    def _known_placeholders(cls, command: tuple[str, ...]) -> tuple[str, ...]:
        for found in re.findall(r"\{\w+\}", " ".join(command)):
            if found not in _PLACEHOLDERS:
                raise ValueError(f"{found} is unknown; known: {', '.join(_PLACEHOLDERS)}")
        return command

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed, as pip or npm is told it."""
        joint = "==" if self.registry == "pypi" else "@"
        return (f"{self.package}{joint}{self.version}", *self.beside)


class Catalogue(Config):
    """Servers by name. The names may become part of tools' names."""

    servers: dict[str, Server]

    def find(self, name: str) -> Server:
        """The server of a name; raises ``ConfigError`` where there is none."""
        if name not in self.servers:
            known = ", ".join(self.servers) or "none"
            raise ConfigError(f"there is no MCP server {name!r}; known: {known}")
        return self.servers[name]


def read_catalogue(path: Path = SHIPPED) -> Catalogue:
    """The servers that a TOML file describes; raises ``ConfigError`` for a wrong one."""
    return load(Catalogue, path)
