"""All records of a load as numbers, by vLLM's and the literature's definitions.

The duration is from the first request that is sent to the last answer's end, failed ones
included. Throughputs count whole answers only. A failed request has no latency, and is not good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from selenite.errors import ConfigError
from selenite.eval.bench.record import Record

LATENCIES = ("ttft", "tpot", "itl", "e2e")
PERCENTILES = (50, 90, 99)

_GOALS = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2e", "e2el": "e2e"}


@dataclass(frozen=True)
class Distribution:
    """Of one latency, in seconds; percentiles are interpolated between neighbours."""

    count: int
    mean: float
    median: float
    p90: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Distribution | None:
        """``None`` without values: nothing is not zero."""
        if not values:
            return None
        median, p90, p99 = np.percentile(values, PERCENTILES).tolist()
        return cls(len(values), float(np.mean(values)), median, p90, p99, max(values))


@dataclass(frozen=True)
class Summary:
    """Rates are per second of ``duration``; a ``None`` stands where there is nothing to count."""

    num_requests: int
    num_completed: int
    errors: dict[str, int]  # kind to count
    error_examples: dict[str, str]  # kind to what was said of the first of it
    duration: float  # seconds
    input_tokens: int  # of completed requests; as the server counts them, else as asked
    output_tokens: int
    cached_tokens: int | None
    counted_outputs: int  # requests whose output tokens are counted events
    unknown_inputs: int  # completed requests whose server does not say the prompt's tokens
    largest_input_error: int | None  # tokens between asked and served prompt length
    request_throughput: float | None
    input_throughput: float | None
    output_throughput: float | None
    total_throughput: float | None
    goals: dict[str, float]  # latency to threshold, in seconds
    num_good: int | None  # None: no goals
    goodput: float | None  # good requests per second
    attainment: float | None  # good requests / all requests
    peak_concurrency: int
    largest_lateness: float  # seconds from due to sent
    latencies: dict[str, Distribution | None]


def summarise(records: Sequence[Record], goals: Mapping[str, float]) -> Summary:
    """``goals`` are thresholds in seconds of ``ttft``, ``tpot`` or ``e2e``."""
    done = [record for record in records if record.failure is None]
    kinds = Counter(kind for record in records if (kind := record.error_kind) is not None)
    duration = max(r.ended for r in records) - min(r.sent for r in records) if records else 0.0
    examples: dict[str, str] = {}
    for record in records:
        if record.error_kind is not None and record.detail:
            examples.setdefault(record.error_kind, record.detail)
    inputs = sum(r.requested_input if r.input_tokens is None else r.input_tokens for r in done)
    outputs = sum(record.output_tokens or 0 for record in done)
    cached = [r.cached_tokens for r in done if r.cached_tokens is not None]
    differences = [
        abs(r.input_tokens - r.requested_input) for r in done if r.input_tokens is not None
    ]
    good = sum(is_good(record, goals) for record in records) if goals else None

    def rate(count: float | None) -> float | None:
        return None if count is None or duration <= 0 else count / duration

    return Summary(
        num_requests=len(records),
        num_completed=len(done),
        errors=dict(sorted(kinds.items())),
        error_examples=examples,
        duration=duration,
        input_tokens=inputs,
        output_tokens=outputs,
        cached_tokens=sum(cached) if cached else None,
        counted_outputs=sum(record.is_output_counted for record in done),
        unknown_inputs=sum(record.input_tokens is None for record in done),
        largest_input_error=max(differences, default=None),
        request_throughput=rate(len(done)),
        input_throughput=rate(inputs),
        output_throughput=rate(outputs),
        total_throughput=rate(inputs + outputs),
        goals=dict(goals),
        num_good=good,
        goodput=rate(good),
        attainment=None if good is None or not records else good / len(records),
        peak_concurrency=peak_concurrency(records),
        largest_lateness=max((r.sent - r.due for r in records), default=0.0),
        latencies={
            "ttft": Distribution.of([r.ttft for r in done if r.ttft is not None]),
            "tpot": Distribution.of([r.tpot for r in done if r.tpot is not None]),
            "itl": Distribution.of([gap for r in done for gap in r.itls]),
            "e2e": Distribution.of([r.e2e for r in done if r.e2e is not None]),
        },
    )


def is_good(record: Record, goals: Mapping[str, float]) -> bool:
    """Whole, and every latency that it has within its goal (one token has no TPOT to miss)."""
    if record.failure is not None:
        return False
    measured = {"ttft": record.ttft, "tpot": record.tpot, "e2e": record.e2e}
    return all((value := measured[name]) is None or value <= goals[name] for name in goals)


def peak_concurrency(records: Sequence[Record]) -> int:
    """The most requests that were under way at once."""
    # At one moment, ends (-1) come before starts.
    changes = sorted([(r.sent, 1) for r in records] + [(r.ended, -1) for r in records])
    running = peak = 0
    for _, change in changes:
        running += change
        peak = max(peak, running)
    return peak


def parse_goals(words: Sequence[str]) -> dict[str, float]:
    """``ttft:500``, in milliseconds, to seconds; raises ``ConfigError``."""
    goals = {}
    for word in (part for given in words for part in given.split()):
        name, colon, number = word.partition(":")
        try:
            milliseconds = float(number)
        except ValueError:
            milliseconds = -1.0
        if name not in _GOALS or not colon or not 0 < milliseconds < float("inf"):
            raise ConfigError(
                f"--goodput {word}: must be ttft, tpot or e2e, a colon and milliseconds: ttft:500"
            )
        goals[_GOALS[name]] = milliseconds / 1000
    return goals
