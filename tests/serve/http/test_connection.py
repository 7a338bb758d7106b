"""Clients that stay connected and do nothing: how long they hold what others need."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from selenite.chat.k2_calls import SECTION_BEGIN
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.config import ServeConfig
from selenite.serve.http import guard
from selenite.serve.http.connection import Connection
from selenite.serve.http.server import Server
from selenite.serve.service import Service
from tests.fixtures.server import free_port, running_here

CHAT = "/v1/chat/completions"
HELLO: list[Any] = [{"role": "user", "content": "Hello, fox."}]


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Server]:
    """Waits for nobody longer than half a second."""
    config = ServeConfig(model=model, port=free_port(), max_running=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "seconds", 0.5)
        patch.setattr(guard, "BODY_SECONDS", 0.5)
        with running_here(config) as started:
            yield started


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{server.config.port}"
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def service_of(server: Server) -> Service:
    assert server.door.loaded is not None
    return server.door.loaded


def connect(server: Server, receive_buffer: int | None = None) -> socket.socket:
    raw = socket.socket()
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(30)
    raw.connect(("127.0.0.1", server.config.port))
    return raw


def post(path: str, body: dict[str, Any]) -> bytes:
    """A request as bytes."""
    payload = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head.encode() + f"Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def rest_of(raw: socket.socket) -> bytes:
    """All that still comes, until the end or a reset."""
    pieces = []
    try:
        while piece := raw.recv(2**20):
            pieces.append(piece)
    except ConnectionResetError:
        pieces.append(b"reset")
    return b"".join(pieces)


# --- clients that do not read


def test_a_stream_that_nobody_reads_gives_its_place_back(
    server: Server, http: httpx.Client
) -> None:
    """Some megabytes of log-probabilities: more than the kernel keeps for a slow reader."""
    body = {"messages": HELLO, "n": 10, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    service = service_of(server)
    with connect(server, receive_buffer=4096) as raw:
        raw.sendall(post(CHAT, body | {"logprobs": True, "top_logprobs": 20}))
        wait_for(lambda: service.num_open == 10)
        wait_for(lambda: service.num_open == 0, seconds=60)
        wait_for(lambda: service.load().running == 0)
        assert not server.server_state.connections
        answer = rest_of(raw)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"finish_reason":"length"' not in answer
    assert b"[DONE]" not in answer
    assert http.post(CHAT, json={"messages": HELLO, "max_tokens": 2}).status_code == 200


def large_answer(model: Path) -> bytes:
    """A request that is answered with eight megabytes."""
    token = Tokenizer.load(model).special_id(SECTION_BEGIN)
    return post("/detokenize", {"tokens": [token] * 300_000})


def test_an_answer_that_nobody_reads_frees_its_connection(server: Server, model: Path) -> None:
    with connect(server, receive_buffer=4096) as raw:
        raw.sendall(large_answer(model))
        wait_for(lambda: len(server.server_state.connections) == 1)
        wait_for(lambda: not server.server_state.connections)


def test_who_reads_slowly_gets_all(server: Server, model: Path) -> None:
    with connect(server) as raw:
        raw.sendall(large_answer(model))
        answer = b""
        for _ in range(20):  # over three time limits
            answer += raw.recv(250_000)
            time.sleep(0.08)
        while len(answer) < 300_000 * len(SECTION_BEGIN):
            piece = raw.recv(2**20)
            assert piece, len(answer)
            answer += piece
    assert answer.endswith(b'"}')


# --- clients that do not send


def drip(raw: socket.socket) -> bytes:
    """Sends a byte every 50 ms until the server answers; all of the answer.

    A byte that meets it on the way can make its end a reset.
    """
    raw.settimeout(0.05)
    for _ in range(60):
        raw.sendall(b" ")
        try:
            first = raw.recv(2**20)
        except TimeoutError:
            continue
        raw.settimeout(5)
        return (first + rest_of(raw)).removesuffix(b"reset")
    raise AssertionError("no answer after three seconds")


@pytest.mark.parametrize(
    "length", ["Content-Length: 200\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nC8\r\n"]
)
def test_a_body_has_a_time_limit(server: Server, length: str) -> None:
    with connect(server) as raw:
        raw.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{length}".encode())
        head, _, body = drip(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert error["code"] == "request_timeout"
    assert "0.5 seconds" in error["message"]


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: ",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nX-Long: ",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n",
    ],
    ids=["nothing", "head", "second head", "body that nobody reads"],
)
def test_a_request_that_does_not_end_frees_its_connection(server: Server, beginning: bytes) -> None:
    with connect(server) as raw:
        raw.sendall(beginning)
        wait_for(lambda: bool(server.server_state.connections))
        end = time.monotonic() + 3
        while server.server_state.connections:
            assert time.monotonic() < end
            time.sleep(0.05)
            if beginning:
                try:
                    raw.sendall(b" ")
                except ConnectionError:
                    break
        wait_for(lambda: not server.server_state.connections)


def test_no_limit_holds_for_waiting_after_the_body(server: Server, http: httpx.Client) -> None:
    """A body that takes half of the time limit, and an answer that takes three."""
    payload = json.dumps({"messages": HELLO, "max_tokens": 2}).encode()

    def halves() -> Iterator[bytes]:
        yield payload[:10]
        time.sleep(0.25)
        yield payload[10:]

    thread = service_of(server).thread
    thread.pause().result()
    threading.Timer(1.75, thread.resume).start()
    headers = {"Content-Type": "application/json"}
    for _ in range(2):  # the connection stays as good as new
        assert http.post(CHAT, content=halves(), headers=headers).status_code == 200
        assert len(server.server_state.connections) == 1


def test_an_answer_says_what_is_allowed(http: httpx.Client) -> None:
    assert http.delete(CHAT).headers["Allow"] == "POST"
