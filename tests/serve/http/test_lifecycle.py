"""A server's life: loading, draining, dying, and coming back."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import httpx
import pytest

from selenite.cli.main import main
from selenite.errors import ConfigError
from selenite.serve.config import ServeConfig
from selenite.serve.http.server import Server
from selenite.serve.service import Service
from tests.fixtures.server import ServerProcess, free_port, running_here

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "Hello, fox."}]


@pytest.mark.slow
def test_a_life(model: Path) -> None:
    """Killed, started again at the same place, drained: what runs is finished, what comes is told
    to go elsewhere, and a second signal changes nothing."""
    killed = ServerProcess(model)
    killed.process.kill()
    killed.process.wait()
    server = ServerProcess(model, port=killed.port)
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
    output = server.output()
    assert "Hello, fox" not in output  # prompts are not logged
    for said in ("model", "dtype", "profile", "cache", server.url):
        assert said in output


def test_a_directory_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path), "--port", str(free_port())])
    assert ended.value.code == 4
    assert "config.json is missing" in capsys.readouterr().err


def test_a_run_that_has_not_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path), "--port", str(free_port())])
    assert ended.value.code == 4
    assert "is a training run that has not ended" in capsys.readouterr().err


def test_a_port_in_use(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            main(["serve", str(model), "--port", str(port)])
    assert ended.value.code == ConfigError.exit_code
    said = capfd.readouterr().err
    assert said.startswith(f"error: --host 127.0.0.1 --port {port}: ")
    assert "--port 0" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kv-layout", "flat"], "--kv-layout flat: "),
        (["--block-size", "0"], "--block-size 0: "),
        (["--lora-modules", "a"], "--lora-modules a: must be NAME=DIRECTORY"),
        (["--lora-modules", "a=x", "--lora-modules", "a=y"], "--lora-modules a=y: a is x already"),
        (["--lora-modules", "m=x", "--served-model-name", "m"], "the model is called m too"),
    ],
)
def test_a_wrong_option_is_named_as_it_was_given(
    model: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(model), *options])
    assert ended.value.code == ConfigError.exit_code
    assert said in capsys.readouterr().err


# --- in this process, where the engine can be broken


@pytest.fixture
def inside(model: Path) -> Iterator[tuple[Server, httpx.Client]]:
    """Two completions run at once, eight may wait; all times are short."""
    config = ServeConfig(
        model=model,
        port=free_port(),
        max_running=2,
        cache_tokens=8192,
        keep_alive=0.05,
        request_timeout=3,
        shutdown_timeout=0.1,
    )
    url = f"http://127.0.0.1:{config.port}"
    with running_here(config) as server, httpx.Client(base_url=url, timeout=30) as client:
        yield server, client


def service_of(server: Server) -> Service:
    assert server.door.loaded is not None
    return server.door.loaded


def test_a_full_queue_answers_429(inside: tuple[Server, httpx.Client]) -> None:
    server, http = inside
    body = {"messages": HELLO, "max_tokens": 5}
    service_of(server).thread.pause().result()  # so that nothing ends before all have come
    with ThreadPoolExecutor(25) as pool:
        asked = [pool.submit(http.post, CHAT, json=body) for _ in range(25)]
        first = [future for _, future in zip(range(15), as_completed(asked), strict=False)]
        service_of(server).thread.resume().result()
    for answer in (future.result() for future in first):
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert answer.json()["error"]["code"] == "queue_full"
    assert sum(future.result().status_code == 200 for future in asked) == 10
    many = http.post(CHAT, json=body | {"n": 11})
    assert many.status_code == 400
    assert "at most 10" in many.json()["error"]["message"]


def test_a_request_has_a_time_limit(inside: tuple[Server, httpx.Client]) -> None:
    server, http = inside
    service_of(server).thread.pause().result()
    answer = http.post(CHAT, json={"messages": HELLO})
    service_of(server).thread.resume().result()
    assert answer.status_code == 408
    assert "3 seconds" in answer.json()["error"]["message"]
    assert http.get("/load").json()["server_load"] == 0


def test_what_does_not_end_in_time_is_told(inside: tuple[Server, httpx.Client]) -> None:
    server, http = inside
    body = {"messages": HELLO, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        server.handle_exit(signal.SIGTERM, None)
        rest = "".join(lines)
    assert "the server stops" in rest
    assert "[DONE]" not in rest


def test_nobody_reads_what_a_server_says_at_its_end(inside: tuple[Server, httpx.Client]) -> None:
    """Whoever started it is gone, and the pipe with them: it drains all the same. A handler's error
    would be raised in whatever task runs at the signal, or nowhere."""
    server, _ = inside

    def broken(line: str) -> None:
        raise BrokenPipeError(line)

    server._say = broken
    server.handle_exit(signal.SIGTERM, None)
    end = time.monotonic() + 10
    while not server.should_exit:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_engine_that_fails_is_not_silent(inside: tuple[Server, httpx.Client]) -> None:
    server, http = inside

    def broken() -> None:
        raise RuntimeError("a bug")

    body = {"messages": HELLO, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with http.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        service_of(server).engine.step = broken  # type: ignore[method-assign]
        rest = "".join(lines)
    assert '"error":{"message":"the engine failed' in rest
    assert "[DONE]" not in rest
    assert http.get("/health").status_code == 503
    assert http.get("/health").json() == {"status": "failed"}
    for path in (CHAT, "/v1/embeddings"):
        late = http.post(path, json={"messages": HELLO, "input": "x"})
        assert late.status_code == 503


def test_silence_is_filled_with_comments(inside: tuple[Server, httpx.Client]) -> None:
    server, http = inside
    thread = service_of(server).thread
    thread.pause().result()
    body = {"messages": HELLO, "max_tokens": 2, "stream": True}
    with http.stream("POST", CHAT, json=body) as response:
        threading.Timer(0.5, thread.resume).start()  # once the stream has begun
        text = response.read().decode()
    assert text.count(": keep-alive\n\n") >= 2
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("options", "reason"),
    [(["--admin", "--host", "0.0.0.0"], "no key lets anybody"), (["--api-key", ""], "empty key")],
)
def test_settings_that_open_the_door_too_wide_are_refused(
    model: Path, options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", str(model), *options])
    assert reason in capsys.readouterr().err
