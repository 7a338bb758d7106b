"""Who takes which role: code, or models of some endpoints, by weight."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from selenite.agent.models.endpoint import Endpoint, JsonMode
from selenite.agent.models.price import Price
from selenite.agent.models.rate import Limits
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.roles.role import Role
from selenite.config import Config
from selenite.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_-]+")  # of an endpoint; a folder of the cache has it too


class EndpointConfig(Config):
    """An OpenAI-compatible endpoint and one model of it."""

    base_url: str
    model: str
    api_key_env: str = ""  # the environment variable with the key; "": none is sent
    timeout: float = Field(default=120.0, gt=0)  # seconds for one request
    json_mode: JsonMode = JsonMode.SCHEMA
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    has_plain_names: bool = False  # of tools: it takes letters, digits, _ and - alone
    extra: dict[str, Any] = Field(default_factory=dict)  # further fields of every request
    input_price: float = Field(default=0.0, ge=0)  # per million tokens
    output_price: float = Field(default=0.0, ge=0)
    at_once: int = Field(default=8, ge=1)  # requests of all processes together
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    retries: int = Field(default=5, ge=0)  # of one request
    longest_pause: float = Field(default=120.0, gt=0)  # seconds between two tries

    def endpoint(self) -> Endpoint:
        """As models take it; raises ``ConfigError``, also where the key is not set."""
        key = os.environ.get(self.api_key_env) if self.api_key_env else None
        if self.api_key_env and not key:
            raise ConfigError(
                f"api_key_env={self.api_key_env!r}: the environment has no such variable; set it "
                "to the key, or leave the field out where the endpoint wants none"
            )
        return Endpoint(
            self.base_url,
            self.model,
            key,
            timeout=self.timeout,
            json_mode=self.json_mode,
            limit_field=self.limit_field,
            has_plain_names=self.has_plain_names,
            extra=self.extra,
            price=Price(input=self.input_price, output=self.output_price),
        )

    def limits(self, processes: int) -> Limits:
        """The part of its limits that each of some processes has."""

        def share(most: int | None) -> int | None:
            return None if most is None else max(1, most // processes)

        return Limits(
            max(1, self.at_once // processes),
            share(self.requests_per_minute),
            share(self.tokens_per_minute),
        )

    def retry(self) -> RetryPolicy:
        """When a request is sent again."""
        first = min(1.0, self.longest_pause)
        return RetryPolicy(self.retries, first_pause=first, longest_pause=self.longest_pause)


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
    def has_models(self) -> bool:
        """Whether any role is a model's."""
        return any(part.endpoint is not None for role in Role for part in self.parts(role))
