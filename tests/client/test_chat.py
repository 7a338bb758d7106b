"""The terminal chat through its standard input, as a script would use it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from selenite.errors import EndpointError
from tests.fixtures.scripted_server import (
    MODELS,
    Answer,
    Script,
    chat_answer,
    delta,
    json_answer,
    scripted_server,
    sse,
)


def chats(answers: list[Answer]) -> Script:
    """Lists a model, and gives the answers in turn."""
    left = iter(answers)
    return lambda path, body: MODELS if path == "/v1/models" else next(left)


def start(url: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "selenite", "chat", "--url", url, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # Where the tests themselves run in the background, SIGINT is ignored and would be here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def talk(url: str, *lines: str, options: tuple[str, ...] = (), code: int = 0) -> str:
    process = start(url, *options)
    shown, said = process.communicate("".join(line + "\n" for line in lines), timeout=60)
    assert process.returncode == code, said
    return shown


def messages(server: Any) -> list[list[dict[str, Any]]]:
    """Of each chat request."""
    return [body["messages"] for path, body in server.requests if path.endswith("completions")]


def test_turns_commands_and_errors() -> None:
    thought = Answer(
        [
            (0.0, sse(delta(role="assistant", content=""))),
            (0.0, sse(delta(reasoning_content="let me see "))),
            (0.0, sse(delta(content="fo")) + sse(delta(content="ur"))),
            (0.0, sse(delta("stop")) + sse("[DONE]")),
        ]
    )
    refusal = json_answer({"error": {"message": "too long"}}, 400)
    broken = Answer([(0.0, sse(delta(content="half")) + sse({"error": {"message": "NaN"}}))])
    cut = Answer([(0.0, sse(delta(content="part")))], is_cut=True)
    answers = [thought, refusal, broken, cut, chat_answer("yes"), chat_answer("new")]
    with scripted_server(chats(answers)) as server:
        shown = talk(
            server.url,
            *("2+2?", "refused", "broken", "cut", "", "sure?", "/what", "/help"),
            *("/system Be kind.", "hello", "/exit", "never read"),
            options=("--temperature", "0", "--max-tokens", "9"),
            code=EndpointError.exit_code,
        )
    assert "let me see four\n" in shown
    assert "error: HTTP 400: too long" in shown
    assert "error: the server failed: NaN" in shown
    assert "/what is no command" in shown
    assert "Ctrl-C" in shown
    asked = messages(server)
    assert len(asked) == 6
    kept = [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "four"},
        {"role": "user", "content": "sure?"},
    ]
    assert asked[4] == kept  # what failed left no trace
    assert asked[5] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hello"},
    ]
    body = server.requests[1][1]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("scripted", 0.0, 9)


def test_reset_keeps_the_system_message() -> None:
    answers = [chat_answer("a"), chat_answer("b"), chat_answer("c")]
    with scripted_server(chats(answers)) as server:
        talk(
            server.url,
            *("one", "/reset", "two", "/system", "three"),
            options=("--system", "S", "--model", "named"),
        )
    assert [[m["content"] for m in asked] for asked in messages(server)] == [
        ["S", "one"],
        ["S", "two"],
        ["three"],
    ]
    assert all(path.endswith("completions") for path, _ in server.requests)  # no list needed


def test_tool_calls_are_shown_and_answered(tmp_path: Path) -> None:
    def part(index: int, id: str = "", name: str = "", arguments: str = "") -> bytes:
        function = {"name": name, "arguments": arguments}
        return sse(delta(tool_calls=[{"index": index, "id": id, "function": function}]))

    calls = Answer(
        [
            (0.0, part(0, "functions.add:0", "add") + part(0, arguments='{"a": ')),
            (0.0, part(0, arguments="1}") + part(1, "functions.add:1", "add", "{}")),
            (0.0, sse(delta("tool_calls")) + sse("[DONE]")),
        ]
    )
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([tool]))
    refusal = json_answer({"error": {"message": "busy"}}, 429)
    answers = [calls, chat_answer("done"), calls, refusal, chat_answer("well")]
    with scripted_server(chats(answers)) as server:
        lines = ("add", "3", "4", "add again", "5", "6", "and?")
        code = EndpointError.exit_code
        shown = talk(server.url, *lines, options=("--tools", str(file)), code=code)
    assert '[add] {"a": 1}' in shown
    assert "done" in shown
    assert server.requests[1][1]["tools"] == [tool]
    called, first, second = messages(server)[1][1:]
    assert [c["id"] for c in called["tool_calls"]] == ["functions.add:0", "functions.add:1"]
    assert called["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert (first["tool_call_id"], first["content"]) == ("functions.add:0", "3")
    assert (second["tool_call_id"], second["content"]) == ("functions.add:1", "4")
    roles = [message["role"] for message in messages(server)[4]]
    assert roles == ["user", "assistant", "tool", "tool", "assistant", "user"]  # no "add again"


def test_an_interrupt_stops_the_answer_and_keeps_the_chat() -> None:
    endless = Answer([(0.02, sse(delta(content="more ")))] * 3000)
    with scripted_server(chats([endless, chat_answer("still here")])) as server:
        process = start(server.url)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("talk\n")
        process.stdin.flush()
        assert process.stdout.read(5) == "more "
        process.send_signal(signal.SIGINT)
        assert server.disconnects.acquire(timeout=20)  # the server was told
        shown, _ = process.communicate("again\n", timeout=60)
    assert process.returncode == 0
    assert "stopped" in shown
    assert "still here" in shown
    talked, partial, again = messages(server)[1]
    assert (talked["content"], again["content"]) == ("talk", "again")
    assert partial["role"] == "assistant"
    assert partial["content"].startswith("more ")


def test_no_server_is_said_at_once() -> None:
    with scripted_server(lambda path, body: MODELS) as server:
        pass
    process = start(server.url)
    _, said = process.communicate("hello\n", timeout=60)
    assert process.returncode == 12
    assert "selenite serve MODEL" in said
    assert "Traceback" not in said
