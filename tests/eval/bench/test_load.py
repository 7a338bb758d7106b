"""The load generator over real sockets, against servers whose delays are known.

Bounds are loose: the machine may be busy, but a delay never comes out shorter than it was.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from selenite.client.endpoint import Endpoint
from selenite.clock import SystemClock
from selenite.errors import ConfigError, EndpointError
from selenite.eval.bench import workload
from selenite.eval.bench.load import Target, run_load, warm_up
from selenite.eval.bench.prompts import PromptMaker, of_range
from selenite.eval.bench.record import Record
from selenite.eval.bench.workload import Workload
from tests.fixtures.scripted_server import (
    Answer,
    delta,
    json_answer,
    scripted_server,
    sse,
    usage,
)

SLACK = 2.0  # seconds that a busy machine may add


def completion(text: str, finish: str | None = None) -> bytes:
    return sse({"choices": [{"index": 0, "text": text, "finish_reason": finish}]})


def load(
    url: str, count: int = 1, arrivals: tuple[float, ...] | None = None, **changes: Any
) -> list[Record]:
    requests = workload.fixed(count, 7, 4)
    fields = {
        "endpoint": Endpoint.parse(url),
        "model": "m",
        "api": "completions",
        "fields": {"temperature": 0.0},
        "max_concurrency": None,
        "timeout": 30.0,
    }
    target = Target(**(fields | changes))
    times = arrivals or (0.0,) * count
    maker = PromptMaker(of_range(1000), seed=0)
    told: list[object] = []
    records = run_load(target, Workload(requests, times, ""), maker, SystemClock(), told.append)
    assert len(told) == count
    return records


def test_known_delays() -> None:
    """0.2 s to the first token, then 0.1 s to each of three more, then 0.3 s of nothing."""
    steps = [
        (0.2, completion("a")),
        *((0.1, completion("b")) for _ in range(3)),
        (0.0, completion("", "length")),
        (0.3, sse(usage(7, 4)) + sse("[DONE]")),
    ]
    with scripted_server(lambda path, body: Answer(steps)) as server:
        (found,) = load(server.url)
    assert found.error_kind is None
    assert 0.2 <= found.ttft <= 0.2 + SLACK
    assert 0.5 - 0.05 <= found.e2e <= 0.5 + SLACK
    assert found.tpot == pytest.approx((found.e2e - found.ttft) / 3)
    assert len(found.itls) == 3
    assert sum(found.itls) == pytest.approx(found.e2e - found.ttft, abs=0.2)
    assert found.ended - found.sent >= 0.8 - 0.05
    ((path, body),) = server.requests
    assert path == "/v1/completions"
    assert len(body["prompt"]) == 7
    assert body["max_tokens"] == 4
    assert body["stream_options"] == {"include_usage": True}


def test_arrivals_and_streams_side_by_side() -> None:
    """Eight streams of half a second at once take half a second, not four."""
    steps = [(0.25, completion("a")), (0.25, completion("b", "length")), (0.0, sse(usage(7, 2)))]
    arrivals = tuple(0.1 * i for i in range(8))
    with scripted_server(lambda path, body: Answer(steps)) as server:
        records = load(server.url, 8, arrivals)
    for found, due in zip(records, arrivals, strict=True):
        assert found.due == due
        assert due <= found.sent <= due + SLACK
        assert found.e2e is not None
        assert 0.5 - 0.05 <= found.e2e <= 0.5 + SLACK
    assert max(r.ended for r in records) < 8 * 0.5


def test_the_concurrency_limit_holds_and_waiting_is_no_latency() -> None:
    lock, running, peak = threading.Lock(), 0, 0

    def script(path: str, body: Any) -> Answer:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.1)
        with lock:
            running -= 1
        return Answer([(0.0, completion("a", "length") + sse(usage(7, 1)))])

    with scripted_server(script) as server:
        records = load(server.url, 9, max_concurrency=3)
    assert peak <= 3
    assert {r.error_kind for r in records} == {None}
    assert max(r.sent for r in records) >= 0.2 - 0.02  # two rounds before the third


def test_every_failure_over_the_wire() -> None:
    """Each request fails in its own way, beside one that does not."""
    good = completion("a") + completion("b", "length") + sse(usage(7, 2)) + sse("[DONE]")
    answers = [
        Answer([(0.0, good)]),
        json_answer({"error": {"message": "queue full"}}, 429),
        Answer([(0.0, completion("a"))], is_cut=True),
        Answer([(0.0, completion("a"))]),
        Answer([(0.0, completion("a")), (5.0, good)]),
        Answer([(0.0, completion("a") + sse({"error": {"message": "broke"}}))]),
        Answer([(0.0, b"data: <html>\n\n")]),
    ]
    lock = threading.Lock()
    left = iter(answers)

    def script(path: str, body: Any) -> Answer:
        with lock:
            return next(left)

    with scripted_server(script) as server:
        records = load(server.url, len(answers), max_concurrency=1, timeout=1.0)
    assert [r.error_kind for r in records] == [
        *(None, "http 429", "disconnected", "truncated", "timeout", "error event", "malformed"),
    ]
    assert records[1].detail == "queue full"
    assert [r.ttft is None for r in records] == [False] + [True] * 6


def test_a_server_that_is_not_there() -> None:
    with scripted_server(lambda path, body: Answer()) as server:
        pass
    (found,) = load(server.url)
    assert found.error_kind == "refused"
    requests = workload.fixed(1, 7, 4)
    target = Target(Endpoint.parse(server.url), "m", "completions", {}, None, 5.0)
    maker = PromptMaker(of_range(1000), seed=0)
    with pytest.raises(EndpointError, match="warm-up failed: refused"):
        warm_up(target, Workload(requests, (0.0,), ""), maker, SystemClock())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"api": "embeddings"}, "--endpoint embeddings"),
        ({"max_concurrency": 0}, "--max-concurrency 0"),
        ({"timeout": 0.0}, "--timeout 0"),
    ],
)
def test_targets_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("http://127.0.0.1:1", **changes)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the command line to the file, on a chat of a server without usage."""
    from selenite.cli.main import main

    def script(path: str, body: Any) -> Answer:
        if path == "/v1/models":
            return json_answer({"data": [{"id": "scripted"}]})
        if path == "/tokenize":  # a token per word
            return json_answer({"tokens": [sum(w.encode()) for w in body["prompt"].split()]})
        words = len(body["messages"][0]["content"].split())
        assert words == 12
        return Answer([(0.0, sse(delta(content="a"))), (0.0, sse(delta("stop", content="b")))])

    file = tmp_path / "found.json"
    with scripted_server(script) as server, pytest.raises(SystemExit) as left:
        main(
            [
                *("bench", "serve", "--url", server.url, "--endpoint", "chat"),
                *("--num-prompts", "5", "--input-len", "8", "--prefix-len", "4"),
                *("--output-len", "2", "--request-rate", "50", "--goodput", "ttft:60000"),
                *("--json", str(file)),
            ]
        )
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "5 of 5" in shown
    assert "5 answers came without usage" in shown
    whole = json.loads(file.read_text())
    assert whole["run"]["model"] == "scripted"
    assert whole["summary"]["num_good"] == 5
    assert [r["output_tokens"] for r in whole["requests"]] == [2] * 5
    assert len({json.dumps(b) for p, b in server.requests if p.startswith("/v1/chat")}) == 6


def test_load_stays_on_this_machine() -> None:
    from selenite.cli.main import main

    with pytest.raises(SystemExit) as left:
        main(["bench", "serve", "--url", "http://192.0.2.1:8000"])
    assert left.value.code == ConfigError.exit_code
