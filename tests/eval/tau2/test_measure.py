"""A model on tau2 through a real server: what is kept, what is counted apart, what has no score."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selenite.cli.main import main
from selenite.errors import ConfigError, DataError
from selenite.eval.measure import Target
from selenite.eval.tau2.command import play
from selenite.eval.tau2.measure import Options, measure
from selenite.eval.tau2.report import Measured, headline, table, write
from selenite.eval.tau2.run import LLM, SLOTS, TICKET
from selenite.eval.tau2.users import AT_ONCE, BOTH
from tests.eval.tau2.conftest import OpenTable
from tests.fixtures.scripted_server import MODELS, Answer, json_answer, scripted_server
from tests.fixtures.server import make_model

OPTIONS = Options(SLOTS, 1, 0.0, 32, True, 4, None)
Reply = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(autouse=True)
def tau2(open_table: OpenTable) -> None:
    """Skips where the benchmark or the sandbox cannot be had."""
    open_table("mock", "base", SLOTS)


def says(text: str) -> dict[str, Any]:
    return {"content": text}


def calls(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def completion(message: dict[str, Any]) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json_answer({"choices": [choice]})


def answering(reply: Reply) -> Callable[[str, Any], Answer]:
    return lambda path, body: MODELS if body is None else completion(reply(body))


def lists_users(body: dict[str, Any]) -> dict[str, Any]:
    """Calls once after each text of the user, and then says that it is done."""
    if body["messages"][-1]["role"] == "tool":
        return says("It is done.")
    return calls("get_users", "{}")


def measured(url: str, out: Path, options: Options = OPTIONS, **more: Any) -> Measured:
    return measure("mock", None, Target(None, url, tag="t"), more.get("user"), out, options)


def test_a_model_is_measured_and_its_answers_are_kept(tmp_path: Path) -> None:
    with scripted_server(answering(lists_users)) as server:
        found = measured(server.url, tmp_path, replace(OPTIONS, trials=2))
        asked = len(server.requests)
        again = measured(server.url, tmp_path, replace(OPTIONS, trials=2))
        assert [body for _, body in server.requests[asked:] if body is not None] == []
    assert again == found
    assert found.left_out == ("create_task_1_with_env_assertions",)
    (name,) = set(found.episodes) - {"null", "gold"}
    summaries = found.summaries(2)
    assert [summaries[agent]["tasks"] for agent in found.episodes] == [8, 8, 8]
    assert len(found.episodes[name]) == 16
    assert summaries[name]["pass^k"] == [1 / 8, 1 / 8]
    assert summaries[name]["lift"] == 0.0
    assert summaries[name]["calls"] >= 1
    assert summaries["gold"]["pass^k"] == [7 / 8]
    assert headline([found], name, 2) is None  # mock is in none
    assert headline([replace(found, domain="airline")], name, 2) is None
    assert headline([replace(found, domain="retail")], name, 2) == 0.0
    assert table([found], SLOTS, 2).row_count == 1
    write(tmp_path / "result.json", [found], {"mode": SLOTS}, 2)
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["domains"]["mock"]["agents"][name]["pass^k"] == [1 / 8, 1 / 8]
    assert len(record["domains"]["mock"]["episodes"][name]) == 16


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    """The result file is the same, byte for byte, and nothing is asked twice."""
    victim: list[subprocess.Popen[bytes]] = []
    is_hunting = threading.Event()

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        if is_hunting.is_set() and len(server.requests) > 6:
            victim[0].send_signal(signal.SIGKILL)
        return lists_users(body)

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "selenite", "eval", "tau2", "--domain", "mock"]
        command += ["--url", server.url, "--tag", "t", "--model", "m", "--concurrency", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([*command, "--out", str(tmp_path / out)], env=environment)

    with scripted_server(answering(reply)) as server:
        is_hunting.set()
        victim.append(start("killed"))
        assert victim[0].wait(120) == -signal.SIGKILL
        is_hunting.clear()
        first = [json.dumps(body) for _, body in server.requests]
        assert not list(tmp_path.glob("killed/*/tau2-slots-*.json"))
        assert start("killed").wait(120) == 0
        second = [json.dumps(body) for _, body in server.requests[len(first) :]]
        # The last one was under way.
        assert not set(first[:-1]) & set(second)
        assert start("whole").wait(120) == 0
    (killed,) = tmp_path.glob("killed/*/tau2-slots-*.json")
    (whole,) = tmp_path.glob("whole/*/tau2-slots-*.json")
    assert killed.read_bytes() == whole.read_bytes()


def test_a_prompt_that_is_too_long_is_wrong_and_counted(tmp_path: Path) -> None:
    error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    with scripted_server(lambda path, body: json_answer(error, 400) if body else MODELS) as server:
        found = measured(server.url, tmp_path)
    (name,) = set(found.episodes) - {"null", "gold"}
    summary = found.summaries(1)[name]
    assert (summary["tasks"], summary["too_long"], summary["errors"]) == (8, 8, 0)
    assert summary["pass^k"] == [0.0]  # the one task that wants nothing done, too


def test_replies_that_are_none_are_the_models_own(tmp_path: Path) -> None:
    with scripted_server(answering(lambda body: calls("get_users", "{"))) as server:
        found = measured(server.url, tmp_path)
    (name,) = set(found.episodes) - {"null", "gold"}
    summary = found.summaries(1)[name]
    assert summary["faults"] == {"a call whose arguments are no JSON object": 8}
    assert summary["errors"] == 0


def test_a_server_that_fails_gives_no_score(tmp_path: Path) -> None:
    with (
        scripted_server(lambda path, body: json_answer({}, 403) if body else MODELS) as server,
        pytest.raises(DataError, match="the pipeline failed in 8 of 8 episodes"),
    ):
        measured(server.url, tmp_path)


def plays_user(body: dict[str, Any]) -> dict[str, Any]:
    """Says what it wants, once, and ends; some users break the rules of the game."""
    system = body["messages"][0]["content"]
    if not any(message["role"] == "assistant" for message in body["messages"]):
        return says("###STOP###" if "delete all" in system else "I want a list of users.")
    if "update_task" in system or "mark" in system:
        return {**calls("get_users", "{}"), "content": "Both."}
    return says("###STOP###")


def test_a_model_plays_the_user_and_its_faults_are_told(tmp_path: Path) -> None:
    options = replace(OPTIONS, mode=LLM)
    with (
        scripted_server(answering(lists_users)) as server,
        scripted_server(answering(plays_user)) as other,
    ):
        user = Target(None, other.url, tag="u")
        found = measured(server.url, tmp_path, options, user=user)
        prompts = [body["messages"][0]["content"] for _, body in other.requests if body]
    assert all("<scenario>" in prompt for prompt in prompts)  # tau2's own
    (name,) = set(found.episodes) - {"null", "gold"}
    summary = found.summaries(1)[name]
    assert summary["user_faults"][AT_ONCE] == 1
    assert summary["user_faults"][BOTH] >= 1
    assert summary["user_fault_share"] == sum(summary["user_faults"].values()) / 8


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [("mock", SLOTS), ("telecom", TICKET), ("mock", LLM)])
def test_random_weights_play_on_our_own_server(tmp_path: Path, name: str, mode: str) -> None:
    model = Target(make_model(tmp_path), None)
    options = Options(mode, 2, 0.7, 16, True, 2, 2)
    user = model if mode == LLM else None
    split = "small" if name == "telecom" else None
    found = measure(name, split, model, user, tmp_path / "out", options)
    own = found.summaries(2)["tiny"]
    assert own["errors"] == 0 or mode == LLM
    assert own["tasks"] + len(found.left_out) == 2 or mode == LLM


def test_an_unknown_domain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="domain 'shop': must be one of retail"):
        measure("shop", None, None, None, tmp_path, OPTIONS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "chat"], "--mode chat: must be one of ticket, slots, next-action, llm"),
        (["--mode", "llm"], "--mode llm needs --user-url"),
        (["--user-url", "http://127.0.0.1:1"], "--mode llm needs --user-url"),
        (["--mode", "next-action", "--trials", "2"], "next-action asks once"),
        (["--domain", "mock", "--split", "test"], "split 'test' of mock: must be one of base"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eval", "tau2", *options])
    assert ended.value.code in (2, 3)
    assert message in " ".join(capsys.readouterr().err.split())


def test_what_is_played_is_written_and_shown(tmp_path: Path) -> None:
    with scripted_server(answering(lists_users)) as server:
        target = Target(None, server.url, tag="t")
        shown, (path,) = play(["mock"], None, target, None, tmp_path, OPTIONS)  # mock: no mean
    assert shown.row_count == 1
    record = json.loads(Path(path).read_text())
    assert record["protocol"]["domains"] == ["mock"]
    assert record["protocol"]["fingerprint"] == target.fingerprint
    assert "concurrency" not in record["protocol"]
    assert record["domains"]["mock"]["agents"][target.title]["tasks"] == 8


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--domain", "mock", "--mode", "next-action", "--out", str(tmp_path), "--url"]
    with scripted_server(answering(lists_users)) as server, pytest.raises(SystemExit) as ended:
        main(["eval", "tau2", *options, server.url])
    assert ended.value.code == 0
    (path,) = tmp_path.glob("*/tau2-next-action-mock-base-*.json")
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    record = json.loads(path.read_text())["agents"]
    assert record["gold"]["categories"]["mock"]["share"] == 1.0
    assert record["null"]["categories"]["mock"]["share"] == 0.0
