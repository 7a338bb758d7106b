"""What stands before every endpoint: keys, and how large and how slow a body may be."""

from __future__ import annotations

import asyncio
import base64
import binascii
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
_ASK = {"WWW-Authenticate": 'Basic realm="Selenite: the API key is the password", charset="UTF-8"'}


class Guard:
    """ASGI middleware. With keys, nothing but ``/health`` answers without one.

    Browsers cannot send a bearer when they open a page. For ``page_paths``, static files, they
    may give the key as the password of HTTP's Basic scheme; what the page then asks for needs the
    bearer: a browser sends passwords along with requests that other sites make.
    """

    def __init__(
        self,
        app: ASGIApp,
        api_keys: Sequence[str],
        max_body_bytes: int,
        page_paths: frozenset[str] = frozenset(),
    ) -> None:
        self._app = app
        self._page_paths = page_paths
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
                self._check_key(headers, scope["path"] in self._page_paths)
            body.check_announced(headers)
            await self._app(scope, body.receive, send_with_id)
        except HTTPException as error:
            if started:
                raise
            await answer(error)(scope, receive, send_with_id)

    def _check_key(self, headers: Headers, is_page: bool) -> None:
        """Every key is compared in full, so that time says nothing of any."""
        if not self._digests:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip().encode("utf-8", "surrogateescape")
        takes_password = is_page and scheme.lower() == "basic"
        digest = _digest(_password(key) if takes_password else key)
        matches = [secrets.compare_digest(digest, known) for known in self._digests]
        if not (any(matches) and (takes_password or scheme.lower() == "bearer")):
            raise HTTPException(
                401,
                "no valid API key: send it as 'Authorization: Bearer KEY'",
                _ASK if is_page else None,
            )


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


def _password(credentials: bytes) -> bytes:
    """Out of Basic's ``base64(user:password)``; empty, which is no key, where there is none."""
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
