"""Where a model answers, by which name, and what it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from selenite.agent.models.price import Price
from selenite.client.endpoint import Endpoint as Server
from selenite.errors import ConfigError

_OURS = frozenset(
    {
        *("model", "messages", "stream", "n"),
        *("tools", "tool_choice", "response_format"),
    }
)
"""Fields of a body that ``extra`` must not set."""

_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")


class JsonMode(StrEnum):
    """How an endpoint is told that it must answer in JSON."""

    SCHEMA = "json_schema"  # response_format with the schema
    OBJECT = "json_object"  # response_format without; the schema stands in the prompt
    PROMPT = "prompt"  # no response_format; the schema stands in the prompt


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and one model of it.

    Raises ``ConfigError`` for what cannot be an address, a key or a field.
    """

    base_url: str  # as OpenAI's clients take it; "/v1" is added where it has no path
    model: str
    api_key: str | None = field(default=None, repr=False)  # None: none is sent
    timeout: float = 120.0  # seconds for one request
    json_mode: JsonMode = JsonMode.SCHEMA
    limit_field: str = "max_tokens"  # some want "max_completion_tokens"
    has_plain_names: bool = False  # it takes only letters, digits, _ and - in names of tools
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of every body
    price: Price = field(default_factory=Price)

    def __post_init__(self) -> None:
        Server.parse(self.base_url)
        key = self.api_key
        if not self.model:
            raise ConfigError("model='': must be a name that the endpoint serves; see its /models")
        if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
            raise ConfigError(  # the value stays unsaid
                "api_key: must be printable ASCII without spaces; is there a line end in it? "
                "Use None where the endpoint wants no key"
            )
        if self.json_mode not in list(JsonMode):
            raise ConfigError(
                f"json_mode={self.json_mode!r}: must be one of {', '.join(JsonMode)}; prompt suits "
                "every endpoint"
            )
        if self.limit_field not in _LIMIT_FIELDS:
            raise ConfigError(
                f"limit_field={self.limit_field!r}: must be one of {', '.join(_LIMIT_FIELDS)}"
            )
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise ConfigError(f"timeout={self.timeout}: must be above 0 seconds, such as 120")
        if taken := sorted(_OURS & self.extra.keys()):
            raise ConfigError(
                f"extra.{taken[0]}: is set by each call; take it out of extra, which is for fields "
                "such as top_p"
            )
        try:
            json.dumps(dict(self.extra), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"extra={self.extra!r}: must be JSON ({error})") from error

    @property
    def server(self) -> Server:
        """As ``selenite.client`` knows it."""
        return Server.parse(self.base_url, self.api_key)

    @property
    def chat_url(self) -> str:
        """Where chats are completed."""
        base = self.base_url.rstrip("/")
        has_path = urlsplit(base).path.strip("/")
        return f"{base}/chat/completions" if has_path else f"{base}/v1/chat/completions"
