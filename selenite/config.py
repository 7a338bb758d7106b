"""Configs: frozen pydantic models, each beside the class it configures.

``Config`` is the base of all of them. A run is one TOML file plus dotted overrides.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base of every config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
