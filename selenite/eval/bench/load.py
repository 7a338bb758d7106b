"""The load itself: every request at its time, each answer noted as it arrives.

Bodies are made before the first is sent and answers are read apart after the last has ended, so
that the client does as little as it can while the server works.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.client.endpoint import Endpoint
from selenite.client.exchange import Exchange, exchange
from selenite.clock import Clock
from selenite.errors import ConfigError, EndpointError
from selenite.eval.bench.prompts import PromptMaker
from selenite.eval.bench.record import Asked, Record, measure
from selenite.eval.bench.workload import Request, Workload

PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True)
class Target:
    """Which server, and what every request says besides its prompt and length."""

    endpoint: Endpoint
    model: str
    api: str  # a key of PATHS
    fields: dict[str, Any]
    max_concurrency: int | None  # requests under way at once; None: no limit
    timeout: float  # seconds for one request

    def __post_init__(self) -> None:
        if self.api not in PATHS:
            raise ConfigError(f"--endpoint {self.api}: must be {' or '.join(PATHS)}")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ConfigError(f"--max-concurrency {self.max_concurrency}: must be 1 or more")
        if not 0 < self.timeout < float("inf"):
            raise ConfigError(f"--timeout {self.timeout}: must be above 0 seconds and finite")

    @property
    def url(self) -> str:
        """Where requests go."""
        return self.endpoint.path(PATHS[self.api])

    def body(self, request: Request, maker: PromptMaker) -> bytes:
        """One request as JSON."""
        if self.api == "chat":
            prompt = {"messages": [{"role": "user", "content": maker.text(request)}]}
        else:
            prompt = {"prompt": maker.ids(request)}  # type: ignore[dict-item]
        fixed = {
            "model": self.model,
            "max_tokens": request.output_len,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return json.dumps({**fixed, **self.fields, **prompt}).encode()


def warm_up(target: Target, workload: Workload, maker: PromptMaker, clock: Clock) -> None:
    """Asks the first request of ``workload`` with other words, unmeasured.

    Raises ``EndpointError`` with the server's reason when it does not answer as it should.
    """
    request = workload.requests[0]
    body = target.body(request, maker)
    only = Workload((request,), (0.0,), "warm-up")
    (record,) = asyncio.run(_run(target, only, [body], clock, lambda _: None))
    if record.error_kind is not None:
        raise EndpointError(
            f"{target.url}: the warm-up failed: {record.error_kind} {record.detail}"
        )


def run_load(
    target: Target,
    workload: Workload,
    maker: PromptMaker,
    clock: Clock,
    on_answer: Callable[[Exchange], None],
) -> list[Record]:
    """All requests of ``workload``, in its order; ``on_answer`` is told of each that ends."""
    bodies = [target.body(request, maker) for request in workload.requests]
    return asyncio.run(_run(target, workload, bodies, clock, on_answer))


async def _run(
    target: Target,
    workload: Workload,
    bodies: Sequence[bytes],
    clock: Clock,
    on_answer: Callable[[Exchange], None],
) -> list[Record]:
    if target.max_concurrency is None:
        limit: contextlib.AbstractAsyncContextManager[Any] = contextlib.nullcontext()
    else:
        limit = asyncio.Semaphore(target.max_concurrency)  # first come, first served

    async with target.endpoint.open_async() as client, asyncio.TaskGroup() as group:
        start = clock.now()

        async def ask(due: float, body: bytes) -> Exchange:
            await clock.sleep(start + due - clock.now())
            async with limit:
                answer = await exchange(client, target.url, body, target.timeout, clock)
            on_answer(answer)
            return answer

        tasks = [
            group.create_task(ask(due, body))
            for due, body in zip(workload.arrivals, bodies, strict=True)
        ]
    return [
        measure(Asked(index, request.input_len, request.output_len, due), task.result(), start)
        for index, (request, due, task) in enumerate(
            zip(workload.requests, workload.arrivals, tasks, strict=True)
        )
    ]
