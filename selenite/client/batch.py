"""A file of requests, asked a few at a time: OpenAI's batch format over any endpoint.

    selenite run-batch requests.jsonl -o answers.jsonl

A server that is full (429), loading (503) or away is asked again, with growing pauses or after the
time that it names; any other error is the line's own and is written as such.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httpx

from selenite.client.batch_file import BatchLine, OutputFile
from selenite.client.endpoint import Endpoint, error_message, message_of
from selenite.clock import Clock

URLS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
_LONGEST_PAUSE = 30.0  # seconds


class LineError(StrEnum):
    """Why a line has no good answer: ``error.code`` of its output."""

    INVALID_LINE = "invalid_line"  # not sent: its method, url or body is wrong
    CONNECTION = "connection"  # no connection, or it broke, at every try
    TIMEOUT = "timeout"  # no answer within the time for one request
    NOT_JSON = "not_json"  # status 200 and a body that is no JSON object
    HTTP_ERROR = "http_error"  # the server's own error is in response.body


@dataclass(frozen=True)
class BatchOptions:
    """How hard to ask."""

    model: str | None  # in the place of the one that a line names; None: that one
    concurrency: int
    retries: int  # further tries of a line
    timeout: float  # seconds for one try


@dataclass(frozen=True)
class _Try:
    outcome: dict[str, Any]
    may_pass: bool = False  # another try may go better
    pause: float | None = None  # seconds until then, where the server says so


def run_batch(
    lines: Sequence[BatchLine],
    output: OutputFile,
    endpoint: Endpoint,
    options: BatchOptions,
    clock: Clock,
    on_line: Callable[[], None],
) -> int:
    """Asks every line that ``output`` has no answer of; gives the number of those that failed."""
    waiting = iter([line for line in lines if line.custom_id not in output.done])
    return asyncio.run(_run(waiting, output, endpoint, options, clock, on_line))


async def _run(
    waiting: Iterator[BatchLine],
    output: OutputFile,
    endpoint: Endpoint,
    options: BatchOptions,
    clock: Clock,
    on_line: Callable[[], None],
) -> int:
    async def work(client: httpx.AsyncClient) -> int:
        failed = 0
        for line in waiting:  # shared: each worker takes the next
            outcome = await _answer(client, endpoint, line, options, clock)
            head = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": line.custom_id}
            output.append({**head, **outcome})
            failed += outcome["error"] is not None
            on_line()
        return failed

    async with endpoint.open_async() as client, asyncio.TaskGroup() as group:
        workers = [group.create_task(work(client)) for _ in range(options.concurrency)]
    return sum(worker.result() for worker in workers)


async def _answer(
    client: httpx.AsyncClient,
    endpoint: Endpoint,
    line: BatchLine,
    options: BatchOptions,
    clock: Clock,
) -> dict[str, Any]:
    """``response`` and ``error`` of a line, after as many tries as it takes and is allowed."""
    if wrong := fault(line.request):
        return _failure(LineError.INVALID_LINE, wrong)
    url = endpoint.path(line.request["url"])
    named = {} if options.model is None else {"model": options.model}
    body = json.dumps(line.request["body"] | named).encode()
    attempt = 0
    while True:
        tried = await _try(client, url, body, options.timeout)
        if not tried.may_pass or attempt == options.retries:
            return tried.outcome
        pause = 2.0**attempt if tried.pause is None else tried.pause
        await clock.sleep(min(pause, _LONGEST_PAUSE))
        attempt += 1


async def _try(client: httpx.AsyncClient, url: str, body: bytes, timeout: float) -> _Try:
    headers = {"Content-Type": "application/json"}
    try:
        async with asyncio.timeout(timeout):
            response = await client.post(url, content=body, headers=headers)
    except TimeoutError:
        return _Try(_failure(LineError.TIMEOUT, f"no answer within {timeout:g} s"))
    except httpx.RequestError as error:
        reason = str(error) or type(error).__name__
        return _Try(_failure(LineError.CONNECTION, reason), may_pass=True)
    after = response.headers.get("Retry-After", "")
    return _Try(
        _outcome(response),
        may_pass=response.status_code in (429, 503),
        pause=float(after) if after.isdigit() else None,
    )


def _outcome(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        body = None
    answer = {
        "status_code": response.status_code,
        "request_id": response.headers.get("x-request-id", ""),
        "body": body,
    }
    if response.status_code != 200:
        return _failure(LineError.HTTP_ERROR, error_message(response), answer)
    if not isinstance(body, dict):
        message = message_of(response.content)
        return _failure(LineError.NOT_JSON, f"the answer is no JSON object: {message}", answer)
    return {"response": answer, "error": None}


def _failure(
    code: LineError, message: str, response: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"response": response, "error": {"code": str(code), "message": message}}


def fault(request: dict[str, Any]) -> str | None:
    """What is wrong with a line's request, before it is sent."""
    body = request.get("body")
    if request.get("method") != "POST":
        return f"method {request.get('method')!r}: must be 'POST'"
    if request.get("url") not in URLS:
        return f"url {request.get('url')!r}: must be one of {', '.join(URLS)}"
    if not isinstance(body, dict):
        return "body: must be an object"
    if body.get("stream"):
        return "body.stream: a batch takes whole answers; leave it out"
    return None
