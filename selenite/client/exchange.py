"""One streamed request with the time of every piece of it: the sending half of the load generator.

While the stream runs, bytes are noted with their time and nothing else happens, so that reading
one stream delays the clock of no other. What the bytes mean is found out afterwards
(``selenite/eval/bench/record.py``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum

import httpx

from selenite.clock import Clock

_SENDING = "http11.send_request_headers.started"  # of httpcore's trace


class Failure(StrEnum):
    """Why a request has no whole answer."""

    REFUSED = "refused"  # no connection
    TIMEOUT = "timeout"  # no whole answer within the time for one request
    DISCONNECTED = "disconnected"  # the connection broke before the answer's end
    HTTP = "http"  # a status other than 200
    ERROR_EVENT = "error event"  # the server failed after its status was sent
    MALFORMED = "malformed"  # what came is no stream of completions
    TRUNCATED = "truncated"  # the stream ended without a finish reason
    EMPTY = "empty"  # it ended well, with no token


@dataclass(frozen=True)
class Exchange:
    """What was received, and when. Times are the clock's seconds."""

    sent: float  # of a request that found no connection: when one was first tried
    received: tuple[tuple[float, bytes], ...]  # in order of arrival
    ended: float
    status: int | None  # of HTTP; None: none came
    failure: Failure | None  # of the transport; None: the answer was read to its end
    detail: str = ""  # what the transport said of the failure


async def exchange(
    client: httpx.AsyncClient, url: str, body: bytes, timeout: float, clock: Clock
) -> Exchange:
    """POSTs the JSON ``body`` and reads the whole answer, in at most ``timeout`` seconds.

    It is sent when its first byte goes out on a connection that stands: what the client needs to
    get there is lateness, not the server's latency.
    """
    received: list[tuple[float, bytes]] = []
    status, failure, detail = None, None, ""
    headers = {"Content-Type": "application/json"}
    sent = clock.now()

    async def note(event: str, _: object) -> None:
        nonlocal sent
        if event == _SENDING:
            sent = clock.now()

    try:
        async with (
            asyncio.timeout(timeout),
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"trace": note}
            ) as response,
        ):
            status = response.status_code
            async for part in response.aiter_bytes():
                received.append((clock.now(), part))
    except (TimeoutError, httpx.TimeoutException) as error:
        failure, detail = Failure.TIMEOUT, str(error)
    except httpx.ConnectError as error:
        failure, detail = Failure.REFUSED, str(error)
    except httpx.RequestError as error:
        failure, detail = Failure.DISCONNECTED, str(error) or type(error).__name__
    if failure is None and status != 200:
        failure = Failure.HTTP
    return Exchange(sent, tuple(received), clock.now(), status, failure, detail)
