"""What stands before every endpoint: keys, and how large and how slow a body may be."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from selenite.serve.http.errors import answer

BODY_SECONDS = 60.0  # from the head of a request to the end of its body
_OPEN_PATHS = ("/health",)


class Guard:
    """ASGI middleware. With keys, nothing but ``/health`` answers without one."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str], max_body_bytes: int) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in api_keys]
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")[:128] or uuid.uuid4().hex
        body = _BoundedBody(receive, self._max_body_bytes)
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            if scope["path"] not in _OPEN_PATHS:
                self._check_key(headers)
            body.check_announced(headers)
            await self._app(scope, body.receive, send_with_id)
        except HTTPException as error:
            if started:
                raise
            await answer(error)(scope, receive, send_with_id)

    def _check_key(self, headers: Headers) -> None:
        """Every key is compared in full, so that time says nothing of any."""
        if not self._digests:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip().encode("utf-8", "surrogateescape"))
        matches = [secrets.compare_digest(digest, known) for known in self._digests]
        if not (any(matches) and scheme.lower() == "bearer"):
            raise HTTPException(401, "no valid API key: send it as 'Authorization: Bearer KEY'")


class _BoundedBody:
    """Receives a body of a limited size in a limited time; what follows it may take its time."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._num_bytes = 0
        self._is_complete = False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    def check_announced(self, headers: Headers) -> None:
        """Before any of it is read."""
        announced = headers.get("content-length", "0")
        if announced.isdigit() and len(announced) < 20 and int(announced) > self._limit:
            raise self._too_large()

    async def receive(self) -> Message:
        if self._is_complete:  # whoever still asks waits for the client to go away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(
                408,
                f"the body was not complete after {BODY_SECONDS:g} seconds; send it faster, or "
                "send less",
                {"Connection": "close"},  # the rest of it is not waited for
            ) from error
        self._is_complete = not message.get("more_body", False)
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._limit:
            raise self._too_large()
        return message

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._limit} bytes; send less")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
