"""An endpoint as a TOML file names it."""

from __future__ import annotations

import os
from typing import Any, Literal

from pydantic import Field

from selenite.agent.models.endpoint import Endpoint, JsonMode
from selenite.agent.models.price import Price
from selenite.agent.models.rate import Limits
from selenite.agent.models.retry import RetryPolicy
from selenite.config import Config
from selenite.errors import ConfigError

ACCESS = frozenset(
    {
        *("base_url", "api_key_env", "timeout", "input_price", "output_price"),
        *("at_once", "requests_per_minute", "tokens_per_minute", "retries", "longest_pause"),
    }
)
"""Fields of an endpoint that say how it is reached, and not what it answers."""


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
