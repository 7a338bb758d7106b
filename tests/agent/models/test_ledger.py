"""The ledger: one line a call, and sums that come out exactly, against what the server counted."""

from __future__ import annotations

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.models.cache import Cache
from selenite.agent.models.failure import ModelError
from selenite.agent.models.ledger import Ledger
from selenite.agent.models.price import Price
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.models.totals import COUNTS, read_ledger
from selenite.client.pieces import Usage
from selenite.clock import ManualClock
from selenite.errors import ConfigError, DataError, StorageError
from selenite.types import Message
from tests.agent.models.stub import ASKED, KEY, SCHEMA, answer, model_at, scripted
from tests.fixtures.scripted_server import Answer, json_answer, scripted_server

PRICE = Price(input=0.15, output=0.6, cached_input=0.075)


def misbehaving(draws: random.Random, served: list[dict[str, int]]) -> Answer:
    """A good answer, or any fault; notes the usage that it reports."""
    usage = {"prompt_tokens": draws.randrange(500), "completion_tokens": draws.randrange(100)}
    kind = draws.choice(
        ["good"] * 6 + ["wrong", "cut", "empty", "unmetered", "full", "broken", "reset", "bad"]
    )
    if kind in ("good", "wrong", "cut", "empty"):
        served.append(usage)
    match kind:
        case "wrong":
            return answer('{"score": 9}', usage=usage)
        case "cut":
            return answer('{"score"', "length", usage=usage)
        case "empty":
            return json_answer({"choices": [], "usage": usage})
        case "unmetered":
            return answer('{"score": 1}', usage=None)
        case "full":
            return json_answer({}, 429)
        case "broken":
            return json_answer({}, 500)
        case "reset":
            return Answer([(0.0, b"{")], is_cut=True)
        case "bad":
            return json_answer({}, 400)
    return answer('{"score": 5}', usage=usage)


def test_it_adds_up(tmp_path: Path) -> None:
    """Threads, retries, repairs, failures and cached replies, against the server's own counts."""
    draws, lock, served = random.Random(5), threading.Lock(), []

    def script(path: str, body: Any) -> Answer:
        with lock:
            return misbehaving(draws, served)

    path = tmp_path / "runs" / "ledger.jsonl"
    ledger, cache = Ledger(path), Cache(tmp_path / "cache")
    retry = RetryPolicy(retries=2)
    options = {"cache": cache, "ledger": ledger, "price": PRICE, "retry": retry, "repairs": 1}
    with scripted_server(script) as server, model_at(server.url, **options) as model:

        def ask(number: int) -> str:
            messages = [Message("user", f"Item {number % 90}.")]  # some twice
            try:
                model.json(messages, SCHEMA)
            except ModelError as failure:
                return failure.reason.value
            return "ok"

        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(ask, range(120)))
        num_requests = len(server.requests)
    totals = ledger.totals()
    totals.check_integrity()
    ledger.close()
    assert totals.calls == 120
    assert totals.succeeded == outcomes.count("ok")
    assert totals.failed == {name: outcomes.count(name) for name in {*outcomes} - {"ok"}}
    assert len(totals.failed) >= 3
    assert totals.counts["requests"] == num_requests
    assert totals.counts["tokens_in"] == sum(usage["prompt_tokens"] for usage in served)
    assert totals.counts["tokens_out"] == sum(usage["completion_tokens"] for usage in served)
    cost = sum(
        usage["prompt_tokens"] * Fraction("0.15") + usage["completion_tokens"] * Fraction("0.6")
        for usage in served
    )
    assert Fraction(totals.cost) == cost / 1_000_000
    for name in ("retries", "repairs", "cached", "truncated", "unmetered"):
        assert totals.counts[name] > 0, name
    # The file says the same, line by line and added up.
    assert read_ledger(path) == totals
    lines = [json.loads(line, parse_float=Decimal) for line in path.read_text().splitlines()]
    assert len(lines) == 120
    assert sum(line["cost"] for line in lines) == totals.cost
    for name in COUNTS:
        assert sum(line[name] for line in lines) == totals.counts[name]
    assert not {"messages", "text", "Item"} & {word for line in lines for word in line}


def test_a_line(tmp_path: Path) -> None:
    path, clock = tmp_path / "ledger.jsonl", ManualClock()
    ledger = Ledger(path)
    details = {"prompt_tokens_details": {"cached_tokens": 40}}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, **details}
    full = json_answer({}, 429, Retry_After="3")
    with (
        scripted(full, answer("x", usage=usage), json_answer({}, 404)) as server,
        model_at(server.url, clock, ledger=ledger, price=PRICE) as model,
    ):
        model.complete(ASKED)
        with pytest.raises(ModelError):
            model.complete(ASKED)
    first, second = map(json.loads, path.read_text().splitlines())
    nothing = dict.fromkeys(COUNTS, 0)
    assert first == {
        "name": "judge",
        "model": "m",
        "outcome": "ok",
        "detail": "",
        **nothing,
        "requests": 2,
        "retries": 1,
        "tokens_in": 100,
        "tokens_in_cached": 40,
        "tokens_out": 20,
        "cost": 24e-6,
        "seconds": 3.0,
        "faults": {"rate_limited": 1},
    }
    assert second == {
        "name": "judge",
        "model": "m",
        "outcome": "refused",
        "detail": "HTTP 404: {}",
        **nothing,
        "requests": 1,
        "cost": 0,
        "seconds": 0,
        "faults": {"refused": 1},
    }
    assert ledger.totals("judge") == ledger.totals()
    assert ledger.totals("user").calls == 0
    ledger.close()


def test_what_ends_otherwise_is_there_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger, cache = Ledger(path), Cache(tmp_path / "cache")
    with (
        scripted(answer("x")) as server,
        model_at(server.url, cache=cache, ledger=ledger) as model,
    ):
        model.complete(ASKED)
        (entry,) = (tmp_path / "cache").rglob("*.json")
        entry.unlink()
        entry.mkdir()
        with pytest.raises(StorageError):
            model.complete(ASKED)
    totals = ledger.totals()
    assert (totals.calls, totals.succeeded, totals.aborted) == (2, 1, 1)
    totals.check_integrity()
    ledger.close()


def test_a_file_that_a_kill_has_torn_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger = Ledger(path)
        with scripted(answer("x")) as server, model_at(server.url, ledger=ledger) as model:
            model.complete(ASKED)
        assert ledger.totals().calls == 1
        ledger.close()
        with path.open("a") as file:
            file.write('{"name": "jud')
    totals = read_ledger(path)
    assert (totals.calls, totals.unreadable) == (2, 2)
    assert totals.counts["tokens_in"] == 200
    assert KEY not in path.read_text()


@pytest.mark.parametrize("text", ['{"a": 1}\n', "[]\n", "3\n"])
def test_what_is_no_ledger(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(DataError, match="line 1: is no line of a ledger"):
        read_ledger(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_ledger(tmp_path / "missing")
    with pytest.raises(StorageError, match="cannot be written"):
        Ledger(path / "below")


def test_prices() -> None:
    assert PRICE.of(Usage(1_000_000, 0)) == Decimal("0.15")
    assert PRICE.of(Usage(1_000_000, 1_000_000, 500_000)) == Decimal("0.7125")
    assert Price(0.1).of(Usage(3, 5, 2)) == Decimal("0.0000003")
    assert Price().of(Usage(3, 5)) == 0
    for wrong in ({"input": -1.0}, {"output": float("nan")}, {"cached_input": float("inf")}):
        with pytest.raises(ConfigError, match="must be 0 or more"):
            Price(**wrong)
