"""Vectors of texts through the engine: a request each, a few of them at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

from selenite.serve.attention_mode import AttentionMode
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.pooling import Pooler, Pooling
from selenite.serve.engine.request import Request
from selenite.serve.generation import failure
from selenite.types import SamplingParams

AT_ONCE = 8
"""Texts of one call that the engine has at the same time, so that others have their turn."""


async def embed(
    thread: EngineThread,
    prompts: Sequence[tuple[int, ...]],
    pooling: Pooling,
    adapter: str | None = None,
    salt: str = "",
    attention: AttentionMode | None = None,
) -> list[list[float]]:
    """The vector of each prompt, in their order.

    Raises the engine's ``ConfigError`` for a prompt that cannot run, and what
    ``generation.failure`` tells. Whoever cancels it, or one that fails, ends all.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def one(prompt: tuple[int, ...]) -> list[float]:
        async with places:
            request = Request(
                uuid.uuid4().hex,
                prompt,
                SamplingParams(max_tokens=1),
                adapter=adapter,
                salt=salt,
                attention=attention,
                pooler=Pooler(pooling),
            )
            return await _vector(thread, request)

    tasks = [asyncio.ensure_future(one(prompt)) for prompt in prompts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _vector(thread: EngineThread, request: Request) -> list[float]:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def told(request: Request) -> None:
        if request.finish_reason is not None:
            loop.call_soon_threadsafe(ended.set)

    try:
        await asyncio.wrap_future(thread.submit(request, told))
        await ended.wait()
    finally:
        thread.abort(request)  # unless it has ended
    assert request.pooler is not None
    if request.pooler.vector is None:
        raise failure(thread, request)
    return request.pooler.vector
