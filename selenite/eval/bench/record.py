"""One request's latencies, out of the bytes of its answer and their times.

With s = the request's first byte is sent, on a connection that stands, t_1 .. t_m = the events with
output (text, reasoning or a part of a tool call) arrive, e = the last event of the choice arrives,
and n = completion tokens:

    TTFT = t_1 - s              an answer without any visible output: e - s
    ITL  = t_(i+1) - t_i        between events: several tokens in one event are one gap
    e2e  = e - s
    TPOT = (e2e - TTFT) / (n - 1)                      none for n = 1

Events that arrive in one read of the socket have the same time.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

from selenite.client.endpoint import message_of
from selenite.client.exchange import Exchange, Failure
from selenite.client.pieces import Piece, Usage, parse_piece
from selenite.client.sse import DONE, SseParser


@dataclass(frozen=True)
class Record:
    """One request. Times are in seconds; ``due`` and ``sent`` count from the start of the load."""

    index: int
    requested_input: int  # tokens
    requested_output: int
    due: float  # when the workload has it arrive
    sent: float  # later than due by connecting, under a concurrency limit, or by a busy client
    ended: float
    failure: Failure | None = None
    status: int | None = None  # of HTTP
    detail: str = ""  # what the server or the transport said of the failure
    ttft: float | None = None  # None: failed
    e2e: float | None = None
    tpot: float | None = None  # None: failed, or one token only
    itls: tuple[float, ...] = field(default=(), repr=False)
    input_tokens: int | None = None  # as the server counts; None: it does not say
    output_tokens: int | None = None
    cached_tokens: int | None = None
    is_output_counted: bool = False  # by events, for the server does not say its tokens
    finish_reason: str | None = None

    @property
    def error_kind(self) -> str | None:
        """``http 429``, ``timeout``, ...; ``None`` for a whole answer."""
        if self.failure is Failure.HTTP:
            return f"http {self.status}"
        return None if self.failure is None else str(self.failure)


@dataclass(frozen=True)
class Asked:
    """What the workload asked for, with its times from the start of the load."""

    index: int
    requested_input: int
    requested_output: int
    due: float


def measure(asked: Asked, answer: Exchange, start: float) -> Record:
    """``start`` is the clock's time when the load began."""
    record = Record(
        index=asked.index,
        requested_input=asked.requested_input,
        requested_output=asked.requested_output,
        due=asked.due,
        sent=answer.sent - start,
        ended=answer.ended - start,
        status=answer.status,
    )
    if answer.failure is not None:
        body = b"".join(part for _, part in answer.received)
        detail = message_of(body) if answer.failure is Failure.HTTP else answer.detail
        return replace(record, failure=answer.failure, detail=detail)
    try:
        pieces = _pieces(answer)
    except ValueError as error:
        return replace(record, failure=Failure.MALFORMED, detail=str(error))
    failed = next((piece.error for _, piece in pieces if piece.error is not None), None)
    if failed is not None:
        return replace(record, failure=Failure.ERROR_EVENT, detail=failed)
    finish = next((p.finish_reason for _, p in pieces if p.finish_reason is not None), None)
    if finish is None:
        return replace(record, failure=Failure.TRUNCATED)
    return _whole(record, answer.sent, pieces, finish)


def _whole(record: Record, sent: float, pieces: list[tuple[float, Piece]], finish: str) -> Record:
    outputs = [at for at, piece in pieces if piece.has_output]
    usage: Usage | None = None
    for _, piece in pieces:
        usage = piece.usage or usage  # the last one counts all
    tokens = len(outputs) if usage is None else usage.completion
    if tokens == 0:
        return replace(record, failure=Failure.EMPTY)
    last = max(at for at, piece in pieces if piece.has_output or piece.finish_reason is not None)
    ttft = (outputs[0] if outputs else last) - sent
    e2e = last - sent
    return replace(
        record,
        ttft=ttft,
        e2e=e2e,
        tpot=(e2e - ttft) / (tokens - 1) if tokens > 1 else None,
        itls=tuple(later - earlier for earlier, later in pairwise(outputs)),
        input_tokens=None if usage is None else usage.prompt,
        output_tokens=tokens,
        cached_tokens=None if usage is None else usage.cached,
        is_output_counted=usage is None,
        finish_reason=finish,
    )


def _pieces(answer: Exchange) -> list[tuple[float, Piece]]:
    """Every event before the end mark with the time of the read that completed it."""
    parser = SseParser()
    events = [(at, data) for at, part in answer.received for data in parser.feed(part)]
    return [(at, parse_piece(data)) for at, data in events if data != DONE]
