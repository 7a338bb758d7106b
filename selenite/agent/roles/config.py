"""Who takes which role: code, or models of some endpoints, by weight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from selenite.agent.models.config import ACCESS, EndpointConfig
from selenite.agent.roles.role import Role
from selenite.config import Config

_NAME = re.compile(r"[A-Za-z0-9_-]+")  # of an endpoint; a folder of the cache has it too


class PartConfig(Config):
    """One back end of a role."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # relative to the others
    endpoint: str | None = None  # by its name in ``endpoints``; None: the programmatic back end
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int = Field(default=512, ge=1)  # of a reply
    repairs: int = Field(default=2, ge=0)
    """Times that the model is told that its reply is not of the schema, and times that it is told
    what code has against its proposal."""


class JudgeConfig(PartConfig):
    """A judge besides those that are code."""

    votes: int = Field(default=3, ge=1)


class RolesConfig(Config):
    """All roles; by default all of them are code's."""

    endpoints: dict[str, EndpointConfig] = Field(default_factory=dict)
    cache_dir: Path | None = None  # answers by request; None: none are kept
    ledger: Path | None = None  # a line for each call; None: there is none
    domain_author: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    tool_author: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    agent_author: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    task_author: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    user: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    tool_world: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    agent: tuple[PartConfig, ...] = Field(default=(PartConfig(),), min_length=1)
    judge: tuple[JudgeConfig, ...] = Field(default=(JudgeConfig(),), min_length=1)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name in self.endpoints:
            if not _NAME.fullmatch(name):
                raise ValueError(f"endpoints.{name}: must be letters, digits, _ and -")
        for role in Role:
            for part in self.parts(role):
                if part.endpoint is not None and part.endpoint not in self.endpoints:
                    known = ", ".join(self.endpoints) or "none"
                    raise ValueError(
                        f"{role}: there is no endpoint {part.endpoint!r}; known: {known}"
                    )
        return self

    def parts(self, role: Role) -> tuple[PartConfig, ...]:
        """The back ends of a role."""
        found: tuple[PartConfig, ...] = getattr(self, role.value)
        return found

    @property
    def most_processes(self) -> int:
        """That may share the limits of endpoints, so that each has a part of all of them."""
        limits = (one for endpoint in self._used for one in vars(endpoint.limits(1)).values())
        return min((limit for limit in limits if limit is not None), default=2**31)

    def at_once(self, processes: int) -> int:
        """Requests that each of some processes may have open; 1 where no role is a model's."""
        return max(1, sum(endpoint.limits(processes).at_once for endpoint in self._used))

    @property
    def _used(self) -> list[EndpointConfig]:
        names = {part.endpoint for role in Role for part in self.parts(role)}
        return [endpoint for name, endpoint in self.endpoints.items() if name in names]

    def decisive(self) -> dict[str, Any]:
        """What a corpus follows from: not how endpoints are reached, nor where answers lie."""
        access: dict[str, Any] = {"__all__": dict.fromkeys(ACCESS, True)}
        unread: dict[str, Any] = {"cache_dir": True, "ledger": True, "endpoints": access}
        return self.model_dump(mode="json", exclude=unread)
