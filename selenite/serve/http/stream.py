"""Server-sent events: an answer in pieces, with signs of life while there is nothing to say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from selenite.serve.generation import Generation
from selenite.serve.http.errors import error_response, status_of

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # proxies must not collect it
]


def event(body: BaseModel, name: str | None = None) -> bytes:
    """One event; fields that were never set are left out."""
    data = body.model_dump_json(exclude_unset=True, by_alias=True).encode()
    return (b"event: " + name.encode() + b"\n" if name else b"") + b"data: " + data + b"\n\n"


class EventStream(Response):
    """An ASGI answer that sends what ``events`` gives, and closes ``generation`` at its end.

    A client that goes away ends it at once. An error after the first byte becomes an event.
    """

    def __init__(
        self, generation: Generation, events: AsyncIterator[bytes], keep_alive: float
    ) -> None:
        super().__init__()
        self._generation = generation
        self._events = events
        self._keep_alive = keep_alive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._generation:
            with contextlib.suppress(ClientDisconnect):
                await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS]})
        async for piece in with_keep_alive(failing_visibly(self._events), self._keep_alive):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def failing_visibly(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """``events``, and the error that ended them as the last one: the status is sent already."""
    try:
        async for piece in events:
            yield piece
    except Exception as error:
        if status_of(error) == 500:
            logger.error("a stream failed", exc_info=error)  # the client is told, too
        yield event(error_response(error))


async def with_keep_alive(events: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    """``events``, with a comment whenever none came for so long."""
    iterator = aiter(events)
    following: asyncio.Task[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(iterator))
            done, _ = await asyncio.wait({following}, timeout=seconds)
            if not done:
                yield _KEEP_ALIVE
                continue
            try:
                piece = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield piece
    finally:
        if following is not None:
            following.cancel()


async def unless_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of ``work``, which is cancelled when the client goes away.

    Raises ``ClientDisconnect`` then. The body of the request must have been read.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for either in (task, gone):
            either.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
