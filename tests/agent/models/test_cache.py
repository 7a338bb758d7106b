"""The cache: one request for one question, whoever asks it, and no trust in a damaged entry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.models.cache import Cache, key_of
from selenite.agent.models.endpoint import Endpoint, JsonMode
from selenite.agent.models.failure import ModelError
from selenite.agent.models.ledger import Ledger
from selenite.agent.models.request import Request
from selenite.agent.models.retry import RetryPolicy
from selenite.errors import StorageError
from selenite.types import Message
from tests.agent.models.stub import (
    ASKED,
    GET_ORDER,
    KEY,
    LIST_ORDERS,
    SCHEMA,
    answer,
    calling,
    model_at,
    scripted,
)
from tests.fixtures.scripted_server import Answer, json_answer

ENDPOINT = Endpoint("http://127.0.0.1:9", "m", KEY)
REQUEST = Request(tuple(ASKED), (GET_ORDER,), "auto", None, 0.5, 10, 3)


def test_a_hit_asks_nobody(tmp_path: Path) -> None:
    text = "größe 你好 🙂 \u2028"
    answers = answer(text, reasoning="hm"), calling(("get_order", '{"id": 3}')), answer("other")
    with scripted(*answers) as server, model_at(server.url, cache=Cache(tmp_path)) as model:
        first = model.complete(ASKED, seed=1)
        called = model.complete(ASKED, tools=[GET_ORDER], seed=1)
        assert model.complete(ASKED, seed=2).text == "other"
        asked = len(server.requests)
    # Another process, as it were, and no server any more.
    with model_at("http://127.0.0.1:9", cache=Cache(tmp_path)) as model:
        again = model.complete(ASKED, seed=1)
        called_again = model.complete(ASKED, tools=[GET_ORDER], seed=1)
        totals = model.ledger.totals()
    assert asked == 3
    assert (again.is_cached, first.is_cached) == (True, False)
    assert (again.text, again.reasoning, again.usage) == (text, "hm", first.usage)
    assert called_again.tool_calls == called.tool_calls
    assert called_again.call_checks == called.call_checks
    assert totals.counts["cached"] == 2
    assert totals.counts["requests"] == totals.counts["tokens_in"] == totals.cost == 0
    totals.check_integrity()


def test_a_repair_comes_out_of_the_cache_like_any_reply(tmp_path: Path) -> None:
    with (
        scripted(answer("four"), answer('{"score": 4}')) as server,
        model_at(server.url, cache=Cache(tmp_path)) as model,
    ):
        assert model.json(ASKED, SCHEMA) == model.json(ASKED, SCHEMA) == {"score": 4}
        assert len(server.requests) == 2
        totals = model.ledger.totals()
    assert (totals.counts["cached"], totals.counts["repairs"]) == (2, 2)
    totals.check_integrity()


CHANGES: list[Callable[[], dict[str, Any]]] = [
    lambda: Request((*ASKED, Message("user", "And?")), *_rest()).body(ENDPOINT),
    lambda: Request(tuple(ASKED), (GET_ORDER, LIST_ORDERS), *_rest()[1:]).body(ENDPOINT),
    lambda: Request(tuple(ASKED), (GET_ORDER,), "none", *_rest()[2:]).body(ENDPOINT),
    lambda: Request(tuple(ASKED), (GET_ORDER,), "auto", SCHEMA, *_rest()[3:]).body(ENDPOINT),
    lambda: Request(*_first(4), 0.6, 10, 3).body(ENDPOINT),
    lambda: Request(*_first(4), 0.5, 11, 3).body(ENDPOINT),
    lambda: Request(*_first(4), 0.5, 10, 4).body(ENDPOINT),
    lambda: Request(*_first(4), 0.5, 10, None).body(ENDPOINT),
    lambda: REQUEST.body(Endpoint("http://127.0.0.1:9", "n")),
    lambda: REQUEST.body(Endpoint("http://127.0.0.1:9", "m", extra={"top_p": 0.5})),
]


def _first(number: int) -> tuple[Any, ...]:
    return tuple(vars(REQUEST).values())[:number]


def _rest() -> tuple[Any, ...]:
    return tuple(vars(REQUEST).values())[1:]


def test_what_a_key_depends_on() -> None:
    keys = {key_of(change()) for change in CHANGES} | {key_of(REQUEST.body(ENDPOINT))}
    assert len(keys) == len(CHANGES) + 1
    elsewhere = Endpoint("https://api.example.com/v1", "m", "another-key", timeout=1.0)
    assert key_of(REQUEST.body(elsewhere)) == key_of(REQUEST.body(ENDPOINT))
    wanted = Request(tuple(ASKED), schema=SCHEMA)
    modes = [Endpoint("http://127.0.0.1:9", "m", json_mode=mode) for mode in JsonMode]
    assert len({key_of(wanted.body(endpoint)) for endpoint in modes}) == 3


def test_the_key_of_the_api_is_written_nowhere(tmp_path: Path) -> None:
    repeats = json_answer({"error": {"message": f"bad key: {KEY}"}}, 401)
    ledger = Ledger(tmp_path / "ledger.jsonl")
    cache = Cache(tmp_path / "cache")
    with (
        scripted(answer("x"), repeats) as server,
        model_at(server.url, cache=cache, ledger=ledger) as model,
    ):
        model.complete(ASKED)
        with pytest.raises(ModelError, match="bad key: "):
            model.complete(ASKED, seed=1)
        assert KEY not in repr(model.endpoint)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3  # an entry, its folder's lock, the ledger
    assert all(KEY not in path.read_text() for path in written)
    ledger.close()


def _flip(data: bytes) -> bytes:
    assert b"fine" in data
    return data.replace(b"fine", b"fins")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        _flip,
        lambda data: b"\xff" + data,
        lambda data: b"[]",
        lambda data: b'{"key": 1}',
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"key": "', b'"key": "0'),
    ],
    ids=["empty", "cut", "a letter", "not utf-8", "a list", "no answer", "nested", "of another"],
)
def test_a_damaged_entry_is_a_miss_and_counted(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    with (
        scripted(answer("fine")) as server,
        model_at(server.url, cache=Cache(tmp_path)) as model,
    ):
        model.complete(ASKED)
        (entry,) = tmp_path.rglob("*.json")
        whole = entry.read_bytes()
        entry.write_bytes(damage(whole))
        assert not model.complete(ASKED).is_cached
        assert entry.read_bytes() == whole
        assert model.complete(ASKED).is_cached
        assert len(server.requests) == 2
        totals = model.ledger.totals()
    assert (totals.counts["corrupted"], totals.counts["cached"]) == (1, 1)
    totals.check_integrity()


def test_failures_are_not_kept(tmp_path: Path) -> None:
    broken = json_answer({}, 500)
    options = {"cache": Cache(tmp_path), "retry": RetryPolicy(retries=0)}
    with scripted(broken, answer("fine")) as server, model_at(server.url, **options) as model:
        with pytest.raises(ModelError):
            model.complete(ASKED)
        assert model.complete(ASKED).text == "fine"


def test_threads_that_ask_the_same_at_once_ask_it_once(tmp_path: Path) -> None:
    slow = Answer([(0.2, answer("fine").steps[0][1])])
    with scripted(slow) as server, model_at(server.url, cache=Cache(tmp_path)) as model:
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(model.complete, ASKED) for _ in range(6)]
            texts = {each.result().text for each in asked}
        assert len(server.requests) == 1
        totals = model.ledger.totals()
    assert texts == {"fine"}
    assert (totals.calls, totals.counts["requests"], totals.counts["cached"]) == (6, 1, 5)
    totals.check_integrity()


def test_a_thread_whose_elder_failed_asks_itself(tmp_path: Path) -> None:
    refused = Answer([(0.2, b"{}")], 400)
    with (
        scripted(refused, answer("fine")) as server,
        model_at(server.url, cache=Cache(tmp_path)) as model,
    ):
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(model.complete, ASKED) for _ in range(2)]
        errors = [each.exception() for each in asked]
    assert sorted(type(error).__name__ for error in errors) == ["ModelError", "NoneType"]


WRITER = """
import sys
from pathlib import Path
from selenite.agent.models.cache import Cache, key_of
cache, who = Cache(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    print(cache.write(key_of({"n": number}), {"who": who, "pad": "x" * 20000})["who"])
"""


def test_processes_that_write_the_same_keep_the_first(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    kept = [writer.communicate()[0].split() for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    assert kept[0] == kept[1] == kept[2]
    found = [Cache(tmp_path).read(key_of({"n": number})).answer for number in range(40)]
    assert [answer and answer["who"] for answer in found] == kept[0]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="cannot be made"):
        Cache(file)
    cache = Cache(tmp_path / "cache")
    key = key_of({})
    (tmp_path / "cache" / key[:2]).write_text("")
    with pytest.raises(StorageError, match="cannot be read"):
        cache.read(key)


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    body = json.loads('{"a": 0.1, "b": 123456789012345678901234567890, "c": 1e400, "d": "\\ud800"}')
    cache = Cache(tmp_path)
    assert cache.write("ab12", body) == cache.read("ab12").answer == body
