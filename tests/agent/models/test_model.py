"""Endpoints that misbehave: a call ends well or with its reason, and is counted either way."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from selenite.agent.models.completion import read_completion
from selenite.agent.models.failure import RETRIED, Fault, ModelError, Reason
from selenite.agent.models.retry import RetryPolicy
from selenite.client.pieces import Usage
from selenite.clock import ManualClock
from selenite.errors import ConfigError
from selenite.types import FinishReason, Message
from tests.agent.models.stub import ASKED, KEY, answer, calling, model_at, scripted, sent
from tests.fixtures.scripted_server import Answer, json_answer

GOOD = answer("fine")
PASSING = {
    "full": (json_answer({"error": {"message": "full"}}, 429), Reason.RATE_LIMITED),
    "broken": (json_answer({"error": "oops"}, 500), Reason.SERVER_ERROR),
    "loading": (Answer([(0.0, b"<html>")], 503), Reason.SERVER_ERROR),
    "error with 200": (json_answer({"error": {"message": "upstream"}}), Reason.SERVER_ERROR),
    "error as a finish": (answer("half", "error"), Reason.SERVER_ERROR),
    "cut json": (Answer([(0.0, b'{"choices": [')]), Reason.MALFORMED),
    "not utf-8": (Answer([(0.0, b'{"choices": "\xff"}')]), Reason.MALFORMED),
    "nested without end": (Answer([(0.0, b"[" * 100_000)]), Reason.MALFORMED),
    "a list": (json_answer([1]), Reason.MALFORMED),
    "no message": (json_answer({"choices": [{"text": "x"}]}), Reason.MALFORMED),
    "content a number": (answer(7), Reason.MALFORMED),
    "half a pair": (answer("\ud800"), Reason.MALFORMED),
    "calls without names": (answer("x", tool_calls=[{"id": "a"}]), Reason.MALFORMED),
    "no choices": (json_answer({"choices": []}), Reason.EMPTY),
    "choices null": (json_answer({"choices": None}), Reason.EMPTY),
    "content null": (answer(None), Reason.EMPTY),
    "content blank": (answer(" \n"), Reason.EMPTY),
    "connection cut": (Answer([(0.0, b'{"cho')], is_cut=True), Reason.CONNECTION),
}
FINAL = {
    "bad request": (json_answer({"error": {"message": "no such field"}}, 400), Reason.REFUSED),
    "bad key": (json_answer({"error": {"message": f"bad key {KEY}"}}, 401), Reason.REFUSED),
    "elsewhere": (json_answer({}, 307, Location="/"), Reason.REFUSED),
    "nested error": (Answer([(0.0, b"[" * 100_000)], 404), Reason.REFUSED),
    "filtered": (answer("half", "content_filter"), Reason.DECLINED),
    "refused by the model": (answer(None, refusal="I cannot."), Reason.DECLINED),
    "thought too long": (answer(None, "length", reasoning="hm"), Reason.TRUNCATED),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again_a_few_times(name: str) -> None:
    bad, reason = PASSING[name]
    assert reason in RETRIED
    clock = ManualClock()
    with scripted(bad, bad, GOOD, bad) as server, model_at(server.url, clock) as model:
        assert model.complete(ASKED).text == "fine"
        assert len(server.requests) == 3
        assert 3 / 2 <= clock.now() <= 3  # 1 + 2, each shortened by up to a half
        with pytest.raises(ModelError, match=f"judge: {reason}: ") as failed:
            model.complete(ASKED)
        assert len(server.requests) == 3 + 6
        totals = model.ledger.totals()
    assert failed.value.reason is reason
    assert failed.value.detail
    assert (3 + 31) / 2 <= clock.now() <= 3 + 31
    assert totals.faults == {reason.value: 2 + 6}
    assert totals.failed == {reason.value: 1}
    assert (totals.succeeded, totals.counts["retries"], totals.counts["requests"]) == (1, 2 + 5, 9)
    totals.check_integrity()


@pytest.mark.parametrize("name", FINAL)
def test_what_is_final_is_asked_once(name: str) -> None:
    bad, reason = FINAL[name]
    clock = ManualClock()
    with scripted(bad) as server, model_at(server.url, clock) as model:
        with pytest.raises(ModelError) as failed:
            model.complete(ASKED)
        assert len(server.requests) == 1
        totals = model.ledger.totals()
    assert failed.value.reason is reason
    assert KEY not in str(failed.value)
    assert clock.now() == 0
    assert totals.failed == {reason.value: 1}
    totals.check_integrity()


def test_a_silent_and_a_dripping_endpoint_time_out() -> None:
    """Both are asked again. The one that drips is never silent for as long as the timeout."""
    silent = Answer([(2.0, b"{}")])
    with scripted(silent, GOOD) as server, model_at(server.url, timeout=1.0) as model:
        assert model.complete(ASKED).text == "fine"
        assert model.ledger.totals().faults == {"timeout": 1}

    clock = ManualClock()

    def ticking() -> Iterator[tuple[float, bytes]]:
        for _ in range(10):
            clock.advance(1.0)
            yield 0.05, b" "

    class Dripping:
        def __iter__(self) -> Iterator[tuple[float, bytes]]:
            return ticking()

    dripping = Answer(Dripping())  # type: ignore[arg-type]
    with scripted(dripping, GOOD) as server, model_at(server.url, clock, timeout=4.5) as model:
        assert model.complete(ASKED).text == "fine"
        assert model.ledger.totals().faults == {"timeout": 1}
        assert server.disconnects.acquire(timeout=5)


@contextmanager
def resetting() -> Iterator[tuple[str, list[int]]]:
    """Resets every connection once the request is there; the url, and one entry a connection."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        ended = threading.Event()

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                connection.settimeout(5)
                connection.recv(100)
                seen.append(1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        finally:
            ended.set()
            thread.join()


def test_a_connection_that_is_reset_or_refused() -> None:
    retry = RetryPolicy(retries=2)
    with resetting() as (url, seen):
        with model_at(url, retry=retry) as model, pytest.raises(ModelError) as failed:
            model.complete(ASKED)
        assert failed.value.reason is Reason.CONNECTION
        assert len(seen) == 3
    with model_at(url, retry=retry) as model, pytest.raises(ModelError) as failed:
        model.complete(ASKED)
    assert failed.value.reason is Reason.CONNECTION
    assert model.ledger.totals().counts["requests"] == 3


def test_the_pause_that_the_endpoint_asks_for() -> None:
    clock = ManualClock()
    full = json_answer({}, 429, Retry_After="7")
    busy = json_answer({}, 503, Retry_After="2.5")
    with scripted(full, busy, GOOD) as server, model_at(server.url, clock) as model:
        model.complete(ASKED)
    assert clock.now() == 9.5
    for_hours = json_answer({"error": {"message": "quota"}}, 429, Retry_After="7200")
    with scripted(for_hours, GOOD) as server, model_at(server.url, clock) as model:
        with pytest.raises(ModelError, match="quota") as failed:
            model.complete(ASKED)
        assert len(server.requests) == 1
    assert failed.value.reason is Reason.RATE_LIMITED
    assert clock.now() == 9.5


def test_what_a_completion_says() -> None:
    text = "größe 你好 🙂 \u2028 \x00"
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    with (
        scripted(
            answer(text, "length", usage, reasoning_content="hm"),
            calling(("get_order", {"id": 3}), ("get_order", None), usage=None),
        ) as server,
        model_at(server.url) as model,
    ):
        cut = model.complete(ASKED)
        called = model.complete(ASKED, repair_calls=False)
        counts = model.ledger.totals().counts
    assert (cut.text, cut.reasoning, cut.finish_reason) == (text, "hm", FinishReason.LENGTH)
    assert cut.usage == Usage(9, 3, 4)
    assert not cut.is_cached
    assert cut.message == Message("assistant", text)
    assert called.usage is None
    assert [call.arguments for call in called.tool_calls] == ['{"id": 3}', "{}"]
    assert (counts["truncated"], counts["unmetered"]) == (1, 1)
    assert sent(server)[0]["messages"][1]["content"] == ASKED[1].content


def test_ids_of_calls_are_told_apart() -> None:
    entry = {"function": {"name": "f", "arguments": ""}}
    message = {"tool_calls": [{**entry, "id": "a"}, {**entry, "id": "a"}, {**entry, "id": None}]}
    read = read_completion({"choices": [{"message": message}]})
    assert not isinstance(read, Fault)
    assert [call.id for call in read.tool_calls] == ["a", "call_1", "call_2"]


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1}, {"prompt_tokens": "many"}, 3])
def test_a_usage_that_makes_no_sense_is_no_fault(usage: Any) -> None:
    with scripted(answer("x", usage=usage)) as server, model_at(server.url) as model:
        assert model.complete(ASKED).usage is None
        assert model.ledger.totals().counts["unmetered"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": -1.0}, "temperature=-1.0: must be 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"seed": -1}, "seed=-1"),
        ({"tool_choice": "required"}, "needs tools"),
        ({"tool_choice": "get_order"}, "tool_choice='get_order': must be"),
    ],
)
def test_arguments_that_no_endpoint_takes(arguments: dict[str, Any], message: str) -> None:
    with model_at("http://127.0.0.1:9") as model:
        with pytest.raises(ConfigError, match=message):
            model.complete(**{"messages": ASKED, **arguments})
        assert model.ledger.totals().calls == 0
