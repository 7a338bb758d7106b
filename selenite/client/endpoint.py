"""Where a server answers, and how to open a connection to it."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from typing import Self

import httpx

from selenite.errors import ConfigError, EndpointError

CONNECT_SECONDS = 10.0
_IDLE_SECONDS = 2.0
"""Connections that lie idle so long are not used again: servers close them, most after 5 seconds,
and a request that meets the close would fail."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server."""

    url: str  # without a slash and without "/v1" at its end
    api_key: str | None = None  # None: none is sent

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> Self:
        """From what a user wrote, with or without ``/v1``; raises ``ConfigError``."""
        rule = "must be like http://127.0.0.1:8000"
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"endpoint {url!r}: {error}; {rule}") from error
        if parts.scheme not in ("http", "https") or not parts.host:
            raise ConfigError(f"endpoint {url!r}: {rule}")
        return cls(url.rstrip("/").removesuffix("/v1"), api_key)

    @property
    def is_loopback(self) -> bool:
        """Whether the server is on this machine, as far as the address itself says."""
        host = httpx.URL(self.url).host
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:  # a name
            return host == "localhost"

    def require_loopback(self, is_remote_allowed: bool) -> None:
        """Raises ``ConfigError`` for another machine, unless the user said that it may be."""
        if not (is_remote_allowed or self.is_loopback):
            raise ConfigError(
                f"endpoint {self.url}: load is sent to this machine only; --allow-remote sends it "
                "to a server that you may load"
            )

    def path(self, path: str) -> str:
        """The whole URL of ``/v1/...`` or another path."""
        return self.url + path

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every request. Compressed streams would be held back until a block is full."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"Accept-Encoding": "identity", **key}

    @property
    def is_encrypted(self) -> bool:
        """Whether it is ``https``: only then are certificates read, which takes a tenth of a second
        for each client."""
        return httpx.URL(self.url).scheme != "http"

    def open(self, timeout: float | None = None) -> httpx.Client:
        """A blocking client; ``timeout`` is in seconds of silence."""
        return httpx.Client(
            headers=self.headers,
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            trust_env=not self.is_loopback,  # a proxy cannot reach this machine
            verify=self.is_encrypted,
        )

    def open_async(self, timeout: float | None = None) -> httpx.AsyncClient:
        """A client for any number of requests at once: none waits for another's connection."""
        return httpx.AsyncClient(
            headers=self.headers,
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS, pool=None),
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            trust_env=not self.is_loopback,
            verify=self.is_encrypted,
        )

    def served_model(self) -> str:
        """The first model that the server lists.

        Raises ``EndpointError`` when it does not answer, or answers with something else.
        """
        try:
            with self.open(timeout=CONNECT_SECONDS) as client:
                response = client.get(self.path("/v1/models"))
        except httpx.RequestError as error:
            raise EndpointError(
                f"{self.url}: no answer ({error or type(error).__name__}); is a server running "
                "there? `selenite serve MODEL` starts one"
            ) from error
        if response.status_code != 200:
            raise EndpointError(f"{self.url}/v1/models: {error_message(response)}")
        try:
            return str(response.json()["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise EndpointError(
                f"{self.url}/v1/models: not a list of models; name one with --model"
            ) from error


def is_too_long(body: bytes) -> bool:
    """Whether an error says that a prompt does not fit into the model's context: OpenAI's code, or
    vLLM's words."""
    return b"context_length_exceeded" in body or b"maximum context length" in body


def error_message(response: httpx.Response) -> str:
    """Status and message of an answer that is an error and was read whole."""
    return f"HTTP {response.status_code}: {message_of(response.content)}"


def message_of(body: bytes) -> str:
    """The message in a body: of OpenAI's error object, or the first characters of anything."""
    text = body.decode(errors="replace")
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError:
        return text[:200]
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or text)[:1000]
