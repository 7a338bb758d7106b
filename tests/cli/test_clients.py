"""chat, run-batch and bench serve against ``selenite serve`` itself, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from selenite.chat.tokenizer import Tokenizer
from selenite.client.child_server import child_server
from selenite.errors import EndpointError
from selenite.eval.bench import prompts
from selenite.model.hf_adapter import save_pretrained
from tests.fixtures.server import KEY, ServerProcess
from tests.fixtures.tiny import k2_config, tiny_model

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SELENITE_API_KEY": KEY}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer has one token for each of the words that prompts are made of."""
    folder = tmp_path_factory.mktemp("model") / "words"
    tokenizer = Tokenizer.train([prompts._WORDS] * 5, 700)
    config = k2_config(vocab_size=tokenizer.vocab_size, max_positions=2048)
    save_pretrained(tiny_model(config), folder)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(model)
    yield process
    process.stop()


def selenite(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "selenite", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, env=ENVIRONMENT
    )


@pytest.mark.parametrize("endpoint", ["completions", "chat"])
def test_bench(server: ServerProcess, tmp_path: Path, endpoint: str) -> None:
    file = tmp_path / "found.json"
    done = selenite(
        *("bench", "serve", "--url", server.url, "--endpoint", endpoint, "--json", file),
        *("--num-prompts", 8, "--input-len", 40, "--prefix-len", 32, "--output-len", 6),
        *("--request-rate", 40, "--max-concurrency", 4, "--goodput", "ttft:60000 tpot:60000"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads(file.read_text())
    summary, requests = whole["summary"], whole["requests"]
    assert summary["num_completed"] == summary["num_good"] == len(requests) == 8
    assert summary["output_tokens"] == 8 * 6
    assert summary["counted_outputs"] == 0
    assert summary["peak_concurrency"] <= 4
    assert summary["cached_tokens"] >= 32  # the shared beginning
    template = {r["input_tokens"] - r["requested_input"] for r in requests}
    assert template == {0} if endpoint == "completions" else len(template) == 1
    assert all(r["ttft"] <= r["e2e"] and r["tpot"] is not None for r in requests)


def test_batch(server: ServerProcess, tmp_path: Path) -> None:
    bodies: list[tuple[str, dict]] = [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "the"}]}),
        ("/v1/completions", {"prompt": "the of and", "model": "words"}),
        ("/v1/completions", {"prompt": "the of and", "model": "another"}),
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [
        {"custom_id": str(i), "method": "POST", "url": url, "body": {"max_tokens": 4} | body}
        for i, (url, body) in enumerate(bodies)
    ]
    source.write_text("".join(json.dumps(each) + "\n" for each in lines))
    done = selenite("run-batch", source, "-o", target, "--url", server.url)
    assert done.returncode == 1, done.stderr
    found = {each["custom_id"]: each for each in map(json.loads, target.open())}
    assert found["0"]["response"]["body"]["usage"]["completion_tokens"] <= 4
    assert found["1"]["response"]["body"]["object"] == "text_completion"
    assert found["2"]["response"]["status_code"] == 404


def test_chat(server: ServerProcess) -> None:
    options = ("--url", server.url, "--temperature", 0, "--max-tokens", 5)
    twice = [selenite("chat", *options, stdin="the of\n/exit\n") for _ in range(2)]
    assert [done.returncode for done in twice] == [0, 0], twice
    assert twice[0].stdout == twice[1].stdout
    assert "error" not in twice[0].stdout


def test_a_model_directory_is_served_for_the_batch_alone(model: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": "another", "prompt": "the of and", "max_tokens": 3}
    request = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    source.write_text(json.dumps(request))
    done = selenite("run-batch", source, "-o", target, "--serve", model, "--model", "words")
    assert done.returncode == 0, done.stderr
    assert json.loads(target.read_text())["error"] is None
    assert not servers_of(model)


def servers_of(model: Path) -> set[int]:
    """Process ids of child servers of ``model``."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "selenite.client.tether" in words and str(model) in words:
            found.add(process.pid)
    return found


@pytest.mark.slow
def test_a_killed_chat_leaves_no_server(model: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "selenite", "chat", str(model), "--max-tokens", "3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("/system ready\n")
    process.stdin.flush()
    assert process.stdout.readline() == "system message set\n"
    assert len(servers_of(model)) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 20
    while servers_of(model):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_directory_without_a_model_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(EndpointError, match="not a model directory") as error,
        child_server(tmp_path),
    ):
        pass
    assert "before it was ready" in str(error.value)
    assert "Traceback" not in str(error.value)
