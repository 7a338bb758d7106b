"""Asking a real server: answers, going on after an interruption, and faults that are no scores."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from selenite.client.endpoint import Endpoint
from selenite.clock import SystemClock
from selenite.errors import ConfigError, DataError
from selenite.eval.ask import AskOptions, ask, check_errors, read_answer
from selenite.eval.functions import functions
from selenite.eval.measure import Target, measure, modes_of
from selenite.eval.question import Answer, Call, Question, Suite
from selenite.eval.scoreboard import bounds, compare, read_verdicts, score, table, write
from selenite.types import Message, ToolSpec
from tests.fixtures.server import KEY, ServerProcess, free_port, make_model

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}}
TOOL = ToolSpec("look_up", "Looks something up.", SCHEMA)
QUESTIONS = tuple(
    Question(f"q{n}", "all", (Message("user", f"Hello, fox {n}."),), (TOOL,)) for n in range(8)
)
OPTIONS = AskOptions("tiny", "a fingerprint", max_tokens=40, concurrency=4, retries=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def endpoint(model: Path) -> Iterator[Endpoint]:
    server = ServerProcess(model)
    yield Endpoint(server.url, KEY)
    server.stop()


def plain(answers: dict[str, Answer]) -> dict[str, tuple[str, tuple[Call, ...]]]:
    return {name: (answer.text, answer.calls) for name, answer in sorted(answers.items())}


def test_a_run_that_was_interrupted_goes_on(endpoint: Endpoint, tmp_path: Path) -> None:
    whole = ask(QUESTIONS, endpoint, tmp_path / "whole", OPTIONS, SystemClock())
    assert whole.keys() == {question.id for question in QUESTIONS}
    assert not any(answer.error for answer in whole.values())
    (path,) = (tmp_path / "whole").iterdir()
    lines = path.read_text().splitlines()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / path.name).write_text("\n".join(lines[:3]) + "\n" + lines[3][:50])
    asked = []
    again = ask(
        QUESTIONS, endpoint, tmp_path / "cut", OPTIONS, SystemClock(), lambda: asked.append(1)
    )
    assert plain(again) == plain(whole)
    assert len(asked) == 8
    kept = (tmp_path / "cut" / path.name).read_text().splitlines()
    assert kept[:3] == lines[:3]
    # What is there whole is not asked again: nobody is there to ask.
    away = Endpoint(f"http://127.0.0.1:{free_port()}")
    assert plain(ask(QUESTIONS, away, tmp_path / "whole", OPTIONS, SystemClock())) == plain(whole)


def test_other_options_are_other_answers(endpoint: Endpoint, tmp_path: Path) -> None:
    for options in (
        OPTIONS,
        replace(OPTIONS, guided=False),
        replace(OPTIONS, max_tokens=41),
        replace(OPTIONS, fingerprint="another"),
    ):
        ask(QUESTIONS[:1], endpoint, tmp_path, options, SystemClock())
    ask(QUESTIONS[1:2], endpoint, tmp_path, OPTIONS, SystemClock())
    ask(QUESTIONS[:1], endpoint, tmp_path, replace(OPTIONS, concurrency=1), SystemClock())
    assert len(list(tmp_path.iterdir())) == 5


def suite_of(questions: tuple[Question, ...]) -> Suite:
    def judge(answers: dict[str, Answer]) -> dict[str, object]:
        return {name: answer for name, answer in answers.items() if not answer.error}

    return Suite("s", "1", questions, {}, judge)  # type: ignore[arg-type]


def test_a_server_that_is_away_gives_no_score(tmp_path: Path) -> None:
    away = Endpoint(f"http://127.0.0.1:{free_port()}")
    answers = ask(QUESTIONS, away, tmp_path, OPTIONS, SystemClock())
    assert all(answer.error.startswith("connection") for answer in answers.values())
    with pytest.raises(DataError, match="8 of 8 requests failed, so there is no score"):
        check_errors(answers)
    right = Answer("fine")
    check_errors({str(n): right for n in range(400)} | {"bad": Answer(error="timeout")})
    found = score(functions(1), "x", {"concept-0": Answer(error="timeout")}, {})
    (only,) = found.scores.values()
    assert (only.total, only.errors, found.verdicts) == (0, 1, {})


def test_an_answer_that_is_missing_is_an_error() -> None:
    with pytest.raises(DataError, match="no answer to q0 and 7 others"):
        score(suite_of(QUESTIONS), "x", {}, {})


def test_a_model_is_measured_in_both_modes(model: Path, tmp_path: Path) -> None:
    """Random weights write no calls, so they are right exactly where none is due."""
    suite = functions(12)
    results = measure(suite, Target(model, None), tmp_path, (True, False), 8, 24)
    assert [result.agent for result in results] == ["tiny, guided", "tiny"]
    floors = bounds(suite)
    for result in results:
        for name, found in result.scores.items():
            assert found.total + found.errors == floors[0].scores[name].total
            if found.calls == 0:
                assert found.right == floors[0].scores[name].right
        assert result.protocol["temperature"] == 0.0
        assert len(result.protocol["fingerprint"]) == 64
    write(tmp_path / "result.json", suite, [*floors, *results])
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["agents"]["gold"]["categories"]["single"]["share"] == 1.0
    low, high = (record["agents"]["tiny"]["categories"]["single"][name] for name in ("low", "high"))
    assert 0 <= low < high <= 1
    assert table(suite, [*floors, *results]).row_count == len(suite.categories) + 2
    name, mine = read_verdicts(tmp_path / "result.json")
    assert name == "tiny, guided"
    _, gold = read_verdicts(tmp_path / "result.json", "gold")
    total, only_mine, only_gold, chance = compare(mine, gold)
    assert (total, only_mine) == (12, 0)
    assert only_gold == 12 - sum(mine.values())
    assert chance == pytest.approx(2 * 0.5**only_gold)
    assert compare(mine, mine) == (12, 0, 0, 1.0)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match="no result of a model in it"):
        read_verdicts(tmp_path / "other.json")


def test_a_servers_answers_are_used_again_only_under_a_tag() -> None:
    one, other = (Target(None, "http://127.0.0.1:1", model="m") for _ in range(2))
    assert one.fingerprint != other.fingerprint
    tagged = [Target(None, "http://127.0.0.1:1", model="m", tag="monday") for _ in range(2)]
    assert tagged[0].fingerprint == tagged[1].fingerprint
    assert modes_of(one, free=True) == (None,)


BAD = [
    {"error": {"message": "overloaded"}},
    {"choices": []},
    {"choices": [{"message": None}]},
    {"choices": [{"message": {"tool_calls": [{"function": "f"}]}}]},
    ["a list"],
]


@pytest.mark.parametrize("body", BAD)
def test_an_answer_that_is_none_is_asked_for_again(tmp_path: Path, body: Any) -> None:
    assert read_answer(body).error.startswith("no chat completion")
    replies = [body]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            good = {"choices": [{"message": {"content": "fine"}}]}
            text = json.dumps(replies.pop() if replies else good).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
        first = ask(QUESTIONS[:1], endpoint, tmp_path, OPTIONS, SystemClock())
        again = ask(QUESTIONS[:1], endpoint, tmp_path, OPTIONS, SystemClock())
        server.shutdown()
    assert first["q0"].error
    assert (again["q0"].error, again["q0"].text) == ("", "fine")


def test_a_prompt_that_is_too_long_is_the_models_own_fault(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    long = Question("q", "single", (Message("user", "fox " * 9000),), (TOOL,))
    answers = ask([long], endpoint, tmp_path, OPTIONS, SystemClock())
    assert answers["q"].too_long
    assert not answers["q"].error
    check_errors(answers)
    suite = functions(1)
    (name,) = suite.gold
    assert not suite.judge({name: answers["q"]})[name].is_right
    assert not suite.judge({name: replace(suite.gold[name], malformed=1)})[name].is_right
    deep = {"function": {"name": "f", "arguments": "[" * 100_000}}
    found = read_answer({"choices": [{"message": {"tool_calls": [deep]}}]})
    assert found.calls == (Call("f", None),)


def test_a_fingerprint_is_of_the_weights_and_the_template(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    known = Target(model, None).fingerprint
    assert Target(copy, None).fingerprint == known
    (copy / "summary.json").write_text("{}")
    assert Target(copy, None).fingerprint == known
    (copy / "chat_template.jinja").write_text("{{ 1 }}")
    assert Target(copy, None).fingerprint != known
    with pytest.raises(ConfigError, match="no model; give a directory with its files"):
        _ = Target(tmp_path, None).fingerprint
