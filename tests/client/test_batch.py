"""Batches: every line answered once, failures typed, and a killed run taken up where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from selenite.client.batch import BatchOptions, fault, run_batch
from selenite.client.batch_file import OutputFile, read_input
from selenite.client.endpoint import Endpoint
from selenite.clock import ManualClock
from selenite.errors import DataError, StorageError
from tests.fixtures.scripted_server import Answer, json_answer, scripted_server

BODY = {"model": "m", "messages": [{"role": "user", "content": "größe \u2028 \ud800"}]}
URL = "/v1/chat/completions"


def line(custom_id: str, **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": URL, "body": BODY} | changes


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Answers by custom_id, each once."""
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    found = {each["custom_id"]: each for each in lines}
    assert len(found) == len(lines)
    return found


def run(source: Path, target: Path, url: str, clock: ManualClock, **changes: Any) -> int:
    options = BatchOptions(
        **({"model": None, "concurrency": 4, "retries": 3, "timeout": 20.0} | changes)
    )
    output = OutputFile(target)
    try:
        return run_batch(read_input(source), output, Endpoint.parse(url), options, clock, int)
    finally:
        output.close()


def test_every_line_has_its_answer_or_its_error(tmp_path: Path) -> None:
    """Full and loading servers are asked again, after the pause that they ask for."""
    tries: dict[str, int] = {}
    lock = threading.Lock()

    def script(path: str, body: Any) -> Answer:
        name = body["name"]
        with lock:
            tries[name] = tries.get(name, 0) + 1
        match name, tries[name]:
            case "full", 1:
                return json_answer({"error": {"message": "full"}}, 429, Retry_After="7")
            case ("full", 2) | ("loading", _):
                return json_answer({"error": {"message": "loading"}}, 503)
            case "wrong", _:
                return json_answer({"error": {"message": "no such field"}}, 400)
            case "text", _:
                return Answer([(0.0, b"hello")])
            case "cut", 1:
                return Answer([(0.0, b"{")], is_cut=True)
            case "slow", _:
                return Answer([(1.5, b"{}")])
        return json_answer({"for": name})

    names = ("good", "full", "loading", "wrong", "text", "cut", "slow")
    source = write(
        tmp_path / "in.jsonl",
        *(line(name, body=BODY | {"name": name}) for name in names),
        line("get", method="GET"),
    )
    clock = ManualClock()
    with scripted_server(script) as server:
        failed = run(source, tmp_path / "out.jsonl", server.url, clock, timeout=1.0)
    found = read(tmp_path / "out.jsonl")
    codes = {name: each["error"] and each["error"]["code"] for name, each in found.items()}
    assert codes == {
        "good": None,
        "full": None,
        "cut": None,
        "loading": "http_error",
        "wrong": "http_error",
        "text": "not_json",
        "slow": "timeout",
        "get": "invalid_line",
    }
    assert failed == 5
    assert found["full"]["response"]["body"] == {"for": "full"}
    assert found["wrong"]["response"]["status_code"] == 400
    assert "no such field" in found["wrong"]["error"]["message"]
    assert found["get"]["response"] is None
    assert tries == {
        "good": 1, "full": 3, "loading": 4, "wrong": 1, "text": 1, "cut": 2, "slow": 1,
    }  # fmt: skip
    assert clock.now() >= 7 + 2  # Retry-After, then the usual pause
    assert all(body["messages"] == BODY["messages"] for _, body in server.requests)


def test_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    lock, running, peak = threading.Lock(), 0, 0

    def script(path: str, body: Any) -> Answer:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return json_answer({})

    source = write(tmp_path / "in.jsonl", *(line(str(i)) for i in range(12)))
    with scripted_server(script) as server:
        assert run(source, tmp_path / "out.jsonl", server.url, ManualClock(), concurrency=3) == 0
    assert 2 <= peak <= 3


def test_a_server_that_is_away(tmp_path: Path) -> None:
    with scripted_server(lambda path, body: json_answer({})) as server:
        pass
    source = write(tmp_path / "in.jsonl", line("a"))
    clock = ManualClock()
    assert run(source, tmp_path / "out.jsonl", server.url, clock) == 1
    assert read(tmp_path / "out.jsonl")["a"]["error"]["code"] == "connection"
    assert clock.now() == 1 + 2 + 4


def test_what_went_well_is_kept_and_the_rest_asked_again(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", line("good"), line("failed"), line("torn"), line("new"))
    target = tmp_path / "deep" / "out.jsonl"
    target.parent.mkdir()
    good = {"custom_id": "good", "response": {"body": 1}, "error": None}
    failed = {"custom_id": "failed", "response": None, "error": {"code": "connection"}}
    write(target, good, failed)
    with target.open("a") as file:
        file.write('{"custom_id": "torn", "respon')
    with scripted_server(lambda path, body: json_answer({"again": True})) as server:
        assert run(source, target, server.url, ManualClock()) == 0
    found = read(target)
    assert set(found) == {"good", "failed", "torn", "new"}
    assert found["good"] == good
    assert len(server.requests) == 3


def test_a_killed_run_is_taken_up(tmp_path: Path) -> None:
    """kill -9 in the middle; the second run asks only what has no answer."""
    count = 16
    source = write(tmp_path / "in.jsonl", *(line(str(i)) for i in range(count)))
    target = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "selenite", "run-batch", str(source), "-o", str(target)]
    with scripted_server(lambda path, body: Answer([(0.05, b"{}")])) as server:
        command += ["--url", server.url, "--concurrency", "2"]
        process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE)
        end = time.monotonic() + 30
        while not (target.exists() and target.read_bytes().count(b"\n") >= 3):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        before = target.read_bytes().count(b"\n")
        assert 3 <= before < count
        asked = len(server.requests)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"{count} answered ({before} before), 0 failed" in done.stdout
        assert len(server.requests) - asked == count - before
    assert set(read(target)) == {str(i) for i in range(count)}


def test_the_exit_code_says_that_one_failed(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", line("a", method="GET"))
    command = [sys.executable, "-m", "selenite", "run-batch", str(source)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out.jsonl")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "1 failed" in done.stdout
    remote = [*command, "-o", str(tmp_path / "out.jsonl"), "--url", "http://192.0.2.1"]
    refused = subprocess.run(remote, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "--allow-remote" in refused.stderr


def test_two_runs_cannot_write_one_file(tmp_path: Path) -> None:
    first = OutputFile(tmp_path / "out.jsonl")
    with pytest.raises(StorageError, match="another process writes it"):
        OutputFile(tmp_path / "out.jsonl")
    first.close()
    OutputFile(tmp_path / "out.jsonl").close()


def test_another_file_is_not_overwritten(tmp_path: Path) -> None:
    for text in ("notes\n", '{"a": 1}\n', json.dumps(line("a")) + "\n"):
        file = tmp_path / "other"
        file.write_text(text)
        with pytest.raises(DataError, match="line 1: not an answer"):
            OutputFile(file)
        assert file.read_text() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no requests"),
        ("{", "line 1: not JSON"),
        ("[]", "line 1: must be an object with a custom_id"),
        ('{"custom_id": 7}', "line 1: must be an object with a custom_id"),
        ('{"custom_id": "a"}\n\n{"custom_id": "a"}', "line 3: custom_id 'a' is line 1's"),
    ],
)
def test_inputs_that_cannot_be_answered(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_input(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "GET"}, "method 'GET'"),
        ({"method": None}, "method None"),
        ({"url": "/v1/files"}, "url '/v1/files'"),
        ({"url": ["/v1/completions"]}, "url"),
        ({"body": None}, "body: must be an object"),
        ({"body": BODY | {"stream": True}}, "body.stream"),
    ],
)
def test_faults_of_a_line(changes: dict[str, Any], message: str) -> None:
    assert fault(line("a")) is None
    assert message in str(fault(line("a", **changes)))
