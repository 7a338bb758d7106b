"""A server's life: loading, draining, dying, and coming back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from selenite.cli.main import main
from selenite.serve.config import ServeConfig
from selenite.serve.http.server import Server
from tests.fixtures.server import KEY, ServerProcess, free_port

HELLO: list[Any] = [{"role": "user", "content": "Hello, fox."}]


def test_term_drains(model: Path) -> None:
    """What runs is finished, what comes is told to go elsewhere, and a second signal is nothing."""
    server = ServerProcess(model, "--shutdown-timeout", "30")
    assert 503 in server.early_statuses  # the socket answered before the model was there
    with server.openai() as ai, server.client() as http:
        body = {"messages": HELLO, "max_tokens": 300, "extra_body": {"ignore_eos": True}}
        chunks = iter(ai.chat.completions.create(model="tiny", **body, stream=True))
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 10
        while http.get("/health").status_code == 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        late = http.post("/v1/chat/completions", json={"messages": HELLO})
        assert late.status_code == 503
        assert "shutting down" in late.json()["error"]["message"]
        last = list(chunks)[-1]
    assert last.choices[0].finish_reason == "length"
    assert server.process.wait(30) == 0
    output = server.process.communicate()[0]
    assert "Hello, fox" not in output  # prompts are not logged
    for said in ("model", "dtype", "profile", "cache", server.url):
        assert said in output


def test_what_does_not_end_in_time_is_told(model: Path) -> None:
    server = ServerProcess(model, "--shutdown-timeout", "0.2")
    with server.openai() as ai:
        body = {"messages": HELLO, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
        chunks = iter(ai.chat.completions.create(model="tiny", **body, stream=True))
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="stops"):
            list(chunks)
    assert server.process.wait(30) == 0


def test_kill_and_restart(model: Path) -> None:
    port = free_port()
    for _ in range(2):
        server = ServerProcess(model, port=port)
        with server.openai() as ai:
            answer = ai.chat.completions.create(model="tiny", messages=HELLO, max_tokens=3)
        assert answer.usage.completion_tokens <= 3
        server.process.kill()
        server.process.wait()


def test_a_directory_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path), "--port", str(free_port())])
    assert ended.value.code == 3
    assert "no tokenizer there" in capsys.readouterr().err


# --- in this process, where the engine can be broken


@pytest.fixture
def inside(model: Path) -> Iterator[tuple[Server, str]]:
    config = ServeConfig(model=model, port=free_port(), api_keys=(KEY,), keep_alive=0.05)
    server = Server(config, say=lambda line: None)
    thread = threading.Thread(target=server.run)
    thread.start()
    url = f"http://127.0.0.1:{config.port}"
    end = time.monotonic() + 30
    while server.door.state != "ready":
        assert time.monotonic() < end
        time.sleep(0.02)
    yield server, url
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30)


def test_an_engine_that_fails_is_not_silent(inside: tuple[Server, str]) -> None:
    server, url = inside
    service = server.door.loaded
    assert service is not None

    def broken() -> None:
        raise RuntimeError("a bug")

    body = {"messages": HELLO, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with client(url) as http, http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        service.thread.call(broken)
        rest = "".join(lines)
    assert '"error":{"message":"the engine failed' in rest
    assert "[DONE]" not in rest
    with client(url) as http:
        assert http.get("/health").status_code == 503
        assert http.get("/health").json() == {"status": "failed"}
        for path in ("/v1/chat/completions", "/v1/embeddings"):
            late = http.post(path, json={"messages": HELLO, "input": "x"})
            assert late.status_code == 503


def test_silence_is_filled_with_comments(inside: tuple[Server, str]) -> None:
    server, url = inside
    service = server.door.loaded
    assert service is not None
    body = {"messages": HELLO, "max_tokens": 2, "stream": True}
    with client(url) as http:
        service.thread.pause().result()
        resume = threading.Timer(0.5, service.thread.resume)
        resume.start()
        with http.stream("POST", "/v1/chat/completions", json=body) as response:
            text = response.read().decode()
    assert text.count(": keep-alive\n\n") >= 2
    assert text.endswith("data: [DONE]\n\n")
