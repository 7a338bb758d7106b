"""One request over HTTP: a body out, a body or a fault back. Nothing is asked twice here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import Fault, Reason
from selenite.client.endpoint import CONNECT_SECONDS, is_too_long, message_of
from selenite.clock import Clock

_IDLE_SECONDS = 2.0
"""A connection that lies idle so long is not used again: most servers close it after 5."""


class Transport:
    """The connections to an endpoint, for any number of threads."""

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        server = endpoint.server
        connect = min(CONNECT_SECONDS, endpoint.timeout)
        self._endpoint = endpoint
        self._clock = clock
        self._client = httpx.Client(
            headers={**server.headers, "Content-Type": "application/json"},
            timeout=httpx.Timeout(endpoint.timeout, connect=connect, pool=None),
            # How many at once is for rate.py to say.
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=_IDLE_SECONDS,
            ),
            trust_env=not server.is_loopback,  # a proxy cannot reach this machine
            verify=server.is_encrypted,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def send(self, body: Mapping[str, Any]) -> dict[str, Any] | Fault:
        """The parsed body of an answer of good status; takes at most twice the timeout."""
        # Not httpx's json=, which cannot encode half of a surrogate pair.
        content = json.dumps(body).encode()
        seconds = self._endpoint.timeout
        started = self._clock.now()
        received: list[bytes] = []
        try:
            with self._client.stream("POST", self._endpoint.chat_url, content=content) as response:
                for part in response.iter_bytes():
                    received.append(part)
                    if self._clock.now() - started > seconds:  # it drips
                        return Fault(Reason.TIMEOUT, f"no whole answer within {seconds:g} s")
        except httpx.TimeoutException:
            return Fault(Reason.TIMEOUT, f"no answer within {seconds:g} s")
        except httpx.RequestError as error:
            return Fault(Reason.CONNECTION, self._said(str(error) or type(error).__name__))
        return self._read(response, b"".join(received))

    def _read(self, response: httpx.Response, content: bytes) -> dict[str, Any] | Fault:
        if not response.is_success:
            detail = self._said(f"HTTP {response.status_code}: {_message(content)}")
            after = retry_after(response.headers)
            return Fault(_reason_of(response.status_code, content), detail, after)
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            return Fault(Reason.MALFORMED, self._said(f"the body is no JSON: {error}"))
        if not isinstance(body, dict):
            return Fault(Reason.MALFORMED, f"the body is a {type(body).__name__}, not an object")
        return body

    def _said(self, text: str) -> str:
        """Without the key, which some servers repeat."""
        key = self._endpoint.api_key
        return text.replace(key, "[api key]") if key else text


def _message(content: bytes) -> str:
    try:
        return message_of(content)
    except RecursionError:
        return "a body that is nested too deeply"


def _reason_of(status: int, content: bytes) -> Reason:
    if status == 429:
        return Reason.RATE_LIMITED
    if status == 400 and is_too_long(content):
        return Reason.TOO_LONG
    return Reason.SERVER_ERROR if status >= 500 else Reason.REFUSED


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, said as a number or, by the server's own clock, as a date."""
    said = headers.get("Retry-After", "")
    if said.replace(".", "", 1).isdecimal():
        return float(said)
    try:
        wait = parsedate_to_datetime(said) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):  # TypeError: one has a time zone, the other none
        return None
    return max(0.0, wait.total_seconds())
