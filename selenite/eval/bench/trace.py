"""Replay of a recorded trace, in the format of the Mooncake traces (FAST'25): JSON lines with

timestamp       milliseconds after the start, in order
input_length    tokens of the prompt
output_length   tokens to write
hash_ids        one id per 512 tokens of the prompt; equal ids, equal tokens up to there
                (may be missing: then prompts share nothing)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from selenite.errors import ConfigError, DataError
from selenite.eval.bench.workload import Request

BLOCK_TOKENS = 512


class TraceLine(BaseModel):
    """One request of a trace; further fields of other traces are passed over."""

    model_config = ConfigDict(frozen=True)

    timestamp: float = Field(ge=0, allow_inf_nan=False)
    input_length: int = Field(ge=1)
    output_length: int = Field(ge=1)
    hash_ids: tuple[NonNegativeInt, ...] = ()


def read_trace(path: Path, count: int | None = None) -> list[TraceLine]:
    """The first ``count`` requests, or all; raises ``DataError`` with the line that is none."""
    lines: list[TraceLine] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, start=1):
                if len(lines) == count:
                    break
                if text.strip():
                    lines.append(_line(text, f"{path}, line {number}"))
                if len(lines) > 1 and lines[-1].timestamp < lines[-2].timestamp:
                    raise DataError(f"{path}, line {number}: timestamp is before the one above")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text ({error})") from error
    if not lines:
        raise DataError(f"{path}: no requests in it")
    return lines


def replay(
    lines: Sequence[TraceLine], length_scale: float = 1.0, speed: float = 1.0
) -> tuple[tuple[Request, ...], tuple[float, ...]]:
    """Requests and arrivals in seconds from the first one's.

    ``speed`` divides the times between arrivals. ``length_scale`` multiplies lengths and the
    block of the hash ids alike, so that the tree of shared prefixes stays: 1/32 makes blocks of 16.
    Raises ``ConfigError``.
    """
    if not 0 < speed < float("inf"):
        raise ConfigError(f"--trace-speed {speed}: must be above 0 and finite")
    block = BLOCK_TOKENS * length_scale
    if not (1 <= block < float("inf") and block == int(block)):
        raise ConfigError(
            f"--length-scale {length_scale}: blocks of {BLOCK_TOKENS} tokens must become whole "
            f"ones of 1 token or more; use a multiple of 1/{BLOCK_TOKENS}"
        )
    requests = tuple(
        _request(index, line, length_scale, int(block)) for index, line in enumerate(lines)
    )
    first = lines[0].timestamp
    return requests, tuple((line.timestamp - first) / 1000 / speed for line in lines)


def _request(index: int, line: TraceLine, scale: float, block: int) -> Request:
    input_len = max(1, round(line.input_length * scale))
    output_len = max(1, round(line.output_length * scale))
    if not line.hash_ids:
        return Request(input_len, output_len, ((-1 - index, input_len),))
    blocks = []
    left = input_len
    for hash_id in line.hash_ids:
        if left > 0:
            blocks.append((hash_id, min(block, left)))
            left -= block
    return Request(input_len, output_len, tuple(blocks))


def _line(text: str, place: str) -> TraceLine:
    try:
        line = TraceLine.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"])) or "line"
        raise DataError(f"{place}: {name}: {fault['msg']}") from error
    needed = -(-line.input_length // BLOCK_TOKENS)
    if line.hash_ids and len(line.hash_ids) != needed:
        raise DataError(
            f"{place}: {len(line.hash_ids)} hash_ids for {line.input_length} tokens; there must "
            f"be {needed}, one per {BLOCK_TOKENS} tokens"
        )
    return line
