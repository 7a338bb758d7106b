"""A request's latencies against closed forms, and every way to fail told apart."""

from __future__ import annotations

import json

import pytest

from selenite.client.exchange import Exchange, Failure
from selenite.eval.bench.record import Asked, Record, measure
from tests.fixtures.scripted_server import delta, sse, usage

ASKED = Asked(index=3, requested_input=10, requested_output=5, due=0.25)
START = 100.0
END = [(100.0, sse(delta("length")))]


def record(*events: tuple[float, bytes], **changes: object) -> Record:
    """Of a request sent at 101 whose events come at the given times."""
    fields = {"status": 200, "failure": None, "ended": 109.0} | changes
    return measure(ASKED, Exchange(sent=101.0, received=events, **fields), START)


def content(text: str) -> bytes:
    return sse(delta(content=text))


def test_closed_form() -> None:
    found = record(
        (101.5, sse(delta(role="assistant", content=""))),  # not yet content
        (102.0, content("a")),
        (102.5, content("b")),
        (103.5, content("c")),
        (104.0, content("d") + sse(delta("length"))),
        (105.0, sse(usage(12, 5)) + sse("[DONE]")),  # no part of the answer's time
    )
    assert found.failure is None
    assert (found.due, found.sent, found.ended) == (0.25, 1.0, 9.0)
    assert found.ttft == pytest.approx(1.0)
    assert found.e2e == pytest.approx(3.0)
    assert found.itls == pytest.approx((0.5, 1.0, 0.5))
    assert found.tpot == pytest.approx((3.0 - 1.0) / 4)  # five tokens by usage in four events
    assert (found.input_tokens, found.output_tokens) == (12, 5)
    assert found.finish_reason == "length"
    assert not found.is_output_counted


def test_any_cut_of_the_bytes_counts_an_event_when_it_is_whole() -> None:
    stream = content("a") + content("b") + sse(delta("stop")) + sse(usage(1, 2)) + sse("[DONE]")
    first_end = len(content("a"))
    for cut in range(1, len(stream)):
        found = record((102.0, stream[:cut]), (103.0, stream[cut:]))
        assert found.ttft == pytest.approx(1.0 if cut >= first_end else 2.0)


def test_a_burst_is_one_gap() -> None:
    """Two tokens in one event: TPOT sees three tokens, ITL two events."""
    found = record((102.0, content("a")), (104.0, content("bc")), (104.0, sse(delta("stop"))),
                   (104.0, sse(usage(1, 3))))  # fmt: skip
    assert found.itls == pytest.approx((2.0,))
    assert found.tpot == pytest.approx(1.0)


def test_reasoning_and_calls_are_output() -> None:
    call = {"index": 0, "id": "f:0", "function": {"name": "f", "arguments": ""}}
    found = record(
        (102.0, sse(delta(reasoning_content="hm"))),
        (103.0, sse(delta(tool_calls=[call]))),
        (103.0, sse(delta("tool_calls"))),
    )
    assert found.ttft == pytest.approx(1.0)
    assert found.itls == pytest.approx((1.0,))


def test_one_token_has_no_tpot_and_no_gap() -> None:
    found = record((102.0, content("a")), (102.0, sse(delta("length"))), (102.0, sse(usage(1, 1))))
    assert found.tpot is None
    assert found.itls == ()


def test_tokens_without_text_end_with_the_answer() -> None:
    found = record((104.0, sse(delta("length"))), (104.0, sse(usage(1, 4))))
    assert found.failure is None
    assert found.ttft == found.e2e == pytest.approx(3.0)


def test_without_usage_events_are_counted_and_said() -> None:
    found = record((102.0, content("a")), (103.0, content("b")), (103.0, sse(delta("stop"))))
    assert (found.output_tokens, found.is_output_counted) == (2, True)
    assert found.input_tokens is None


@pytest.mark.parametrize(
    ("events", "changes", "failure", "kind", "detail"),
    [
        ([], {"status": None, "failure": Failure.REFUSED, "detail": "no"}, "refused", "refused",
         "no"),
        ([(102.0, content("a"))], {"failure": Failure.TIMEOUT}, "timeout", "timeout", ""),
        ([(102.0, content("a"))], {"failure": Failure.DISCONNECTED}, "disconnected",
         "disconnected", ""),
        ([(102.0, json.dumps({"error": {"message": "full"}}).encode())],
         {"status": 429, "failure": Failure.HTTP}, "http", "http 429", "full"),
        ([(102.0, content("a") + sse({"error": {"message": "broke"}}))], {}, "error event",
         "error event", "broke"),
        ([(102.0, content("a") + sse("{"))], {}, "malformed", "malformed", "not an event"),
        ([(102.0, content("a"))], {}, "truncated", "truncated", ""),
        ([(102.0, sse(delta("stop")) + sse(usage(3, 0)))], {}, "empty", "empty", ""),
    ],
)  # fmt: skip
def test_failures_have_a_kind_and_no_latency(events, changes, failure, kind, detail) -> None:
    found = record(*events, **changes)
    assert (found.failure, found.error_kind) == (failure, kind)
    assert detail in found.detail
    assert found.ttft is found.tpot is found.e2e is found.output_tokens is None
    assert found.itls == ()
