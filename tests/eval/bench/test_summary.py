"""Throughput, percentiles and goodput of records whose sums are known."""

from __future__ import annotations

import math

import pytest

from selenite.client.exchange import Failure
from selenite.errors import ConfigError
from selenite.eval.bench.record import Record
from selenite.eval.bench.report import notes
from selenite.eval.bench.summary import (
    Distribution,
    is_good,
    parse_goals,
    peak_concurrency,
    summarise,
)


def record(index: int, sent: float, ttft: float, tpot: float | None, tokens: int, **changes):
    """An answer of ``tokens`` tokens to a prompt of 100."""
    e2e = ttft + (tpot or 0.0) * (tokens - 1)
    fields = {
        "index": index,
        "requested_input": 100,
        "requested_output": tokens,
        "due": sent,
        "sent": sent,
        "ended": sent + e2e,
        "ttft": ttft,
        "e2e": e2e,
        "tpot": tpot,
        "itls": (tpot or 0.0,) * (tokens - 1),
        "input_tokens": 100,
        "output_tokens": tokens,
    }
    return Record(**(fields | changes))


def failed(index: int, sent: float, ended: float, failure: Failure, status: int | None = None):
    return Record(index, 100, 10, sent, sent, ended, failure, status, detail=f"said {index}")


RECORDS = [
    record(0, 0.0, 0.1, 0.02, 11),  # 0.0 to 0.3
    record(1, 0.1, 0.4, 0.01, 21),  # 0.1 to 0.7
    record(2, 0.2, 0.2, None, 1),  # 0.2 to 0.4
    failed(3, 0.305, 2.0, Failure.TIMEOUT),
    failed(4, 0.305, 0.31, Failure.HTTP, 429),
    failed(5, 0.305, 0.31, Failure.HTTP, 429),
]


def test_rates_count_whole_answers_over_the_whole_time() -> None:
    found = summarise(RECORDS, {})
    assert found.duration == pytest.approx(2.0)
    assert (found.num_requests, found.num_completed) == (6, 3)
    assert found.errors == {"http 429": 2, "timeout": 1}
    assert found.error_examples == {"http 429": "said 4", "timeout": "said 3"}
    assert (found.input_tokens, found.output_tokens) == (300, 33)
    assert found.request_throughput == pytest.approx(1.5)
    assert found.input_throughput == pytest.approx(150)
    assert found.output_throughput == pytest.approx(16.5)
    assert found.total_throughput == pytest.approx(166.5)
    assert found.goodput is found.num_good is found.attainment is None


def test_failures_are_no_zeros_among_the_latencies() -> None:
    found = summarise(RECORDS, {}).latencies
    counts = {name: latency.count for name, latency in found.items() if latency is not None}
    assert counts == {"ttft": 3, "tpot": 2, "itl": 30, "e2e": 3}
    assert found["ttft"] is not None
    assert found["ttft"].mean == pytest.approx(0.7 / 3)
    assert found["ttft"].median == pytest.approx(0.2)


def test_nothing_is_not_zero() -> None:
    found = summarise([failed(0, 0.0, 1.0, Failure.REFUSED)], {"ttft": 1.0})
    assert set(found.latencies.values()) == {None}
    assert (found.num_good, found.goodput, found.attainment) == (0, 0.0, 0.0)
    assert found.largest_input_error is found.cached_tokens is None


def test_percentiles_are_interpolated() -> None:
    found = Distribution.of([float(i) for i in range(101)])
    assert found is not None
    assert (found.median, found.p90, found.p99, found.largest) == (50, 90, 99, 100)
    two = Distribution.of([0.0, 1.0])
    assert two is not None
    assert (two.median, two.p90) == (0.5, pytest.approx(0.9))
    assert Distribution.of([]) is None


def test_goodput_needs_every_goal_and_a_whole_answer() -> None:
    goals = {"ttft": 0.25, "tpot": 0.015}
    assert [is_good(r, goals) for r in RECORDS] == [False, False, True, False, False, False]
    assert [is_good(r, {"ttft": 0.25}) for r in RECORDS] == [True, False, True] + [False] * 3
    assert is_good(RECORDS[0], {"e2e": RECORDS[0].e2e})  # a goal is met at its value
    found = summarise(RECORDS, {"ttft": 0.25})
    assert (found.num_good, found.goodput, found.attainment) == (2, pytest.approx(1.0), 2 / 6)


def test_peak_concurrency_ends_before_it_starts() -> None:
    assert peak_concurrency([record(i, 0.1 * i, 0.1, None, 1) for i in range(3)]) <= 2
    touching = [record(0, 0.0, 0.5, None, 1), record(1, 0.5, 0.5, None, 1)]
    assert peak_concurrency(touching) == 1
    assert peak_concurrency(RECORDS) == 5
    assert peak_concurrency([]) == 0


def test_goals_are_milliseconds() -> None:
    assert parse_goals(["ttft:500 tpot:50", "e2el:9000"]) == {"ttft": 0.5, "tpot": 0.05, "e2e": 9.0}
    for wrong in ("ttft", "ttft:", "ttft:-1", "ttft:nan", "ttft:inf", "itl:5", "ttft:5:6"):
        with pytest.raises(ConfigError, match="--goodput"):
            parse_goals([wrong])


def test_notes_say_what_bends_a_number() -> None:
    bent = [
        record(0, 0.0, 0.1, 0.1, 5, is_output_counted=True, input_tokens=None),
        record(1, 0.0, 0.1, 0.1, 5, input_tokens=130),
    ]
    text = "\n".join(notes(summarise(bent, {})))
    assert "1 answers came without usage" in text
    assert "without the prompt's tokens" in text
    assert "up to 30 tokens" in text
    assert summarise(bent, {}).input_tokens == 100 + 130
    assert list(notes(summarise(RECORDS, {}))) == ["timeout: said 3", "http 429: said 4"]
    assert math.isclose(summarise(bent, {}).largest_lateness, 0.0)
